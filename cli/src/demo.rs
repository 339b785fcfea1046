//! A server and a client connected to it, in one process.

use lineframe::Server;

use crate::address::Address;
use crate::failure::Failure;
use crate::listen::Listener;
use crate::{connect, serve, stream};

/// Try it out: a server and a client connected to it, in one process.
///
/// The server answers each line with its ASCII upper case. On a terminal you type the lines; otherwise they are those of
/// stdin.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:\n  lineframe demo\n  printf 'hello\\nworld\\n' | lineframe demo")]
pub(crate) struct Arguments {}

/// The server is on a free loopback port.
pub(crate) async fn run(Arguments {}: Arguments) -> Result<(), Failure> {
    let listener = Listener::bind(&lineframe::Bind::new(), &Address::Tcp("127.0.0.1:0".into())).await?;
    let address = listener.address().map_err(|error| Failure::other("no local address", error))?;
    tokio::spawn(Server::new().serve(listener, serve::upper));
    let greeting = format!("A server listens on {address}, and you are connected to it.");
    connect::talk(stream::connect(&address).await?, greeting, None, &connect::Options::forgetful()).await
}
