//! The first server, in Rust.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8083".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);

    let (mut conn, _) = listener.accept().await?;
    let mut buffer = [0; 1024];
    loop {
        let count = conn.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        let data = &buffer[..count];
        println!("received {count} bytes: \"{:.30}\"", data.escape_ascii().to_string());
        conn.write_all(&data.to_ascii_uppercase()).await?;
    }
    Ok(())
}
