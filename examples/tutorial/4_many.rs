//! A server for any number of clients at the same time.

use futures::{SinkExt, TryStreamExt};
use lineframe::LineCodec;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::Framed;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8083".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);

    loop {
        let (conn, _) = listener.accept().await?;
        tokio::spawn(async {
            if let Err(error) = serve(conn).await {
                println!("client disconnected: {error}");
            }
        });
    }
}

async fn serve(conn: TcpStream) -> std::io::Result<()> {
    let mut lines = Framed::new(conn, LineCodec::builder().max_length(80).build());
    while let Some(line) = lines.try_next().await? {
        match line {
            Ok(line) => lines.send(line.to_ascii_uppercase().into()).await?,
            Err(bad) => lines.send(bad.reply().into()).await?,
        }
    }
    Ok(())
}
