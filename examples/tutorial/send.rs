//! Sends all of stdin, closes the sending side, and prints all replies.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8083".into());
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;

    let mut conn = TcpStream::connect(address)?;
    conn.write_all(&input)?;
    conn.shutdown(Shutdown::Write)?;
    io::copy(&mut conn, &mut io::stdout())?;
    Ok(())
}
