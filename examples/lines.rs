//! The codec on a stream: the first program in README.

// region: program
use futures::TryStreamExt;
use lineframe::LineCodec;
use tokio_util::codec::FramedRead;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let stream = &b"hello\r\nhow are you?\nby"[..]; // a TcpStream, a child's stdout
    let mut lines = FramedRead::new(stream, LineCodec::new());
    while let Some(line) = lines.try_next().await? {
        match line {
            Ok(line) => println!("{line:?}"), // b"hello", b"how are you?"
            Err(bad) => println!("{bad}"),    // line of 2 bytes cut before its terminator
        }
    }
    Ok(())
}
// endregion
