//! Sends half a line, then stays connected without sending more.

use std::io::{self, Read, Write};
use std::net::TcpStream;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8083".into());
    let mut conn = TcpStream::connect(address)?;
    conn.write_all(b"half a li")?;
    match conn.read(&mut [0; 1024]) {
        Ok(0) => println!("the server closed the connection"),
        Ok(count) => println!("received {count} bytes"),
        Err(error) => println!("{error}"),
    }
    Ok(())
}
