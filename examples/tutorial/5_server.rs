//! A server with deadlines and graceful shutdown.

use std::time::Duration;

use lineframe::{Connection, LineCodec, Server};
use tokio::net::TcpListener;

async fn upper(mut conn: Connection) -> std::io::Result<()> {
    while let Some(line) = conn.next_line().await? {
        match line {
            Ok(line) => conn.write_line(line.to_ascii_uppercase()).await?,
            Err(bad) => conn.write_line(bad.reply()).await?,
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8083".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);

    let server = Server::builder()
        .codec(LineCodec::builder().max_length(80).build())
        .line_timeout(Duration::from_secs(1)) // default: 30 s
        .build();
    let done = server.serve_with_shutdown(listener, upper, tokio::signal::ctrl_c()).await;
    println!("clients: {}, lines: {}, timed out: {}", done.accepted, done.lines, done.line_timeouts);
    Ok(())
}
