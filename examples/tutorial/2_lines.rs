//! A server that reads lines.

use futures::{SinkExt, TryStreamExt};
use lineframe::LineCodec;
use tokio::net::TcpListener;
use tokio_util::codec::Framed;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8083".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);

    let (conn, _) = listener.accept().await?;
    let mut lines = Framed::new(conn, LineCodec::new());
    while let Some(line) = lines.try_next().await? {
        let line = line?;
        println!("received {} bytes: \"{:.30}\"", line.len(), line.escape_ascii().to_string());
        lines.send(line.to_ascii_uppercase().into()).await?;
    }
    Ok(())
}
