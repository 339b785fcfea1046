//! Sends each line of stdin to a Unix socket and prints the reply.

use lineframe::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or("./upper.sock".into());
    let mut conn = Client::new().connect_unix(path).await?;
    for line in std::io::stdin().lines() {
        println!("{}", conn.request(line?).await?.escape_ascii());
    }
    Ok(())
}
