//! The command `demo`: a server and a connected client in one process.

use lineframe::Server;

use crate::address::Address;
use crate::failure::Failure;
use crate::listen::Listener;
use crate::{connect, serve, stream};

/// Try lineframe: run a server and a connected client in one process.
///
/// The server replies to each line with the line in ASCII upper case. On a terminal, type the
/// lines; otherwise they are read from stdin.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:\n  lineframe demo\n  printf 'hello\\nworld\\n' | lineframe demo")]
pub(crate) struct Arguments {}

/// Runs the server on a free loopback port and connects to it.
pub(crate) async fn run(Arguments {}: Arguments) -> Result<(), Failure> {
    let listener = Listener::bind(&lineframe::Bind::new(), &Address::Tcp("127.0.0.1:0".into())).await?;
    let address = listener
        .address()
        .map_err(|error| Failure::other("cannot get the address of the listener", error))?;
    tokio::spawn(Server::new().serve(listener, serve::upper));
    let greeting = format!("Started a server on {address} and connected to it.");
    connect::talk(stream::connect(&address).await?, greeting, None, &connect::Options::without_history())
        .await
}
