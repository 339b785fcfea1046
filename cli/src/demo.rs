use std::future::pending;

use lineframe::Server;

use crate::address::Address;
use crate::failure::Failure;
use crate::stream::{self, Listener};
use crate::{connect, serve};

/// A server on a free loopback port, and a client connected to it.
pub(crate) async fn run() -> Result<(), Failure> {
    let listener = Listener::bind(&Address::Tcp("127.0.0.1:0".into())).await?;
    let address = listener.address().map_err(|error| Failure::other("no local address", error))?;
    tokio::spawn(serve::serve(&Server::new(), listener, pending::<()>()));
    let greeting = format!("A server listens on {address}, and you are connected to it.");
    connect::run(stream::connect(&address).await?, greeting).await
}
