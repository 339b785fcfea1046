//! A server: the second program in README.

// region: program
use lineframe::{Connection, Server};
use tokio::net::TcpListener;

async fn upper(mut conn: Connection) -> std::io::Result<()> {
    while let Some(line) = conn.next_line().await? {
        match line {
            Ok(line) => conn.write_line(line.to_ascii_uppercase()).await?,
            Err(bad) => conn.write_line(bad.reply()).await?, // this line only
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8083".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening {}", listener.local_addr()?);
    Server::new().serve_with_shutdown(listener, upper, tokio::signal::ctrl_c()).await;
    Ok(())
}
// endregion
