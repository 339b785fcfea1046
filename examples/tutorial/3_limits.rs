//! A server that limits the length of a line and continues after a bad line.

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
    let mut lines = Framed::new(conn, LineCodec::builder().max_length(80).build());
    while let Some(line) = lines.try_next().await? {
        match line {
            Ok(line) => lines.send(line.to_ascii_uppercase().into()).await?,
            Err(bad) => lines.send(bad.reply().into()).await?, // the connection stays open
        }
    }
    let counters = lines.codec().counters();
    println!("lines: {}, bad lines: {}", counters.lines, counters.bad_items());
    Ok(())
}
