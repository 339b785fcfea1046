//! A server and a client: the second program of README.

// region: program
use lineframe::{Client, Connection, Server};
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
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>(); // or tokio::signal::ctrl_c()
    let server = tokio::spawn(Server::new().serve_with_shutdown(listener, upper, stopped));

    let mut conn = Client::new().connect(address).await?;
    println!("{:?}", conn.request("hello").await?); // b"HELLO"

    drop((conn, stop)); // the server answers what has come, and ends
    println!("lines: {}", server.await?.lines); // lines: 1
    Ok(())
}
// endregion
