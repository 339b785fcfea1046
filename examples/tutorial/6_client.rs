//! Sends each line of stdin and prints the reply.

use lineframe::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8083".into());
    let mut conn = Client::builder().retry(3).build().connect(address).await?;
    for line in std::io::stdin().lines() {
        let reply = conn.request(line?).await?;
        println!("{}", reply.escape_ascii());
    }
    Ok(())
}
