//! A server on a TCP port and a Unix socket, with one handler.

use lineframe::{Bind, Server, reply};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8083".into());
    let tcp = Bind::new().tcp(address).await?;
    let unix = Bind::new().mode(0o600).unix("./upper.sock").await?;
    println!("listening on {} and ./upper.sock", tcp.local_addr()?);

    let server = Server::new();
    let upper = reply(|line| line.to_ascii_uppercase());
    let (_, done) = tokio::join!(
        server.serve_with_shutdown(tcp, upper.clone(), tokio::signal::ctrl_c()),
        server.serve_with_shutdown(unix, upper, tokio::signal::ctrl_c()),
    );
    println!("clients: {}, lines: {}", done.accepted, done.lines);
    println!("./upper.sock exists: {}", std::fs::exists("./upper.sock")?);
    Ok(())
}
