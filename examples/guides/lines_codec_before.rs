//! An upper-case server with tokio-util's `LinesCodec`, before the migration.
//!
//! ```sh
//! cargo run --example lines_codec_before -- 127.0.0.1:8083
//! ```

use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

// region: session
async fn session(stream: TcpStream) -> Result<(), LinesCodecError> {
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(80));
    while let Some(line) = lines.next().await {
        match line {
            Ok(line) => lines.send(line.to_uppercase()).await?,
            // This looks as if the loop continued with the next line. It does not.
            Err(error) => println!("{error}"),
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
