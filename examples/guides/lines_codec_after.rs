//! The server of `lines_codec_before`, with `LineCodec`.
//!
//! ```sh
//! cargo run --example lines_codec_after -- 127.0.0.1:8083
//! ```

use futures::{SinkExt, TryStreamExt};
use lineframe::LineCodec;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::Framed;

// region: session
async fn session(stream: TcpStream) -> std::io::Result<()> {
    let codec = LineCodec::builder().max_length(80).max_encoded_length(200).build();
    let mut lines = Framed::new(stream, codec);
    // An error of the stream ends the loop through `?`. A bad line is an item.
    while let Some(line) = lines.try_next().await? {
        match line {
            Ok(line) => lines.send(line.to_ascii_uppercase().into()).await?,
            Err(bad) => {
                println!("{bad}");
                lines.send(bad.reply().into()).await?;
            }
        }
    }
    println!("end of the stream");
    Ok(())
}
// endregion

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8083".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(session(stream));
    }
}
