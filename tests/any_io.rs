//! `AnyIo` erases the type of a stream and recovers it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use allocation_counter::measure;
use bytes::Bytes;
use lineframe::{AnyIo, Connection, LineCodec};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::net::{TcpListener, TcpStream};

/// Returns both ends of a TCP connection.
async fn tcp() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (here, there) = tokio::join!(TcpStream::connect(listener.local_addr()?), listener.accept());
    Ok((here?, there?.0))
}

/// Checks writes, vectored writes, half-close and reads in both directions.
async fn check_both_directions(here: AnyIo, there: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let (mut here, mut there) = (pin!(here), pin!(there));
    let mut heard = [0; 4];
    here.write_all(b"ping").await?;
    here.flush().await?;
    there.read_exact(&mut heard).await?;
    assert_eq!(&heard, b"ping");
    there.write_all(b"pong").await?;
    here.read_exact(&mut heard).await?;
    assert_eq!(&heard, b"pong");

    // If the stream supports it, one vectored write takes both slices.
    let pieces = [IoSlice::new(b"in "), IoSlice::new(b"pieces")];
    let written = poll_fn(|cx| here.as_mut().poll_write_vectored(cx, &pieces)).await?;
    assert_eq!(written, if here.is_write_vectored() { 9 } else { 3 });
    // Shutting down one direction leaves the other open.
    here.shutdown().await?;
    let mut rest = String::new();
    there.read_to_string(&mut rest).await?;
    assert_eq!(rest, "in pieces"[..written]);
    there.write_all(b"still heard").await?;
    there.shutdown().await?;
    let mut rest = String::new();
    here.read_to_string(&mut rest).await?;
    assert_eq!(rest, "still heard");
    Ok(())
}

#[tokio::test]
async fn every_kind_of_stream_carries_bytes_both_ways() -> io::Result<()> {
    let (here, there) = tcp().await?;
    check_both_directions(AnyIo::new(here), there).await?;
    let (here, there) = duplex(64);
    check_both_directions(AnyIo::new(here), there).await?;
    let (here, there) = tcp().await?;
    check_both_directions(AnyIo::new(here), AnyIo::new(there)).await?;
    #[cfg(unix)]
    {
        let (here, there) = tokio::net::UnixStream::pair()?;
        check_both_directions(AnyIo::new(here), there).await?;
    }
    let (mut here, there) = duplex(64);
    here.write_all(b"read already").await?;
    let mut here = AnyIo::with_prefix("", here);
    here = AnyIo::with_prefix("gone", here);
    here.read_exact(&mut [0; 4]).await?;
    let mut there = AnyIo::new(there);
    there.read_exact(&mut [0; 12]).await?;
    check_both_directions(here, there).await
}

#[tokio::test]
async fn tcp_and_unix_streams_are_not_boxed() -> io::Result<()> {
    let (tcp, _there) = tcp().await?;
    let mut held = None;
    assert_eq!(measure(|| held = Some(AnyIo::new(tcp))).count_total, 0);
    assert_eq!(measure(|| held = held.take().map(AnyIo::new)).count_total, 0);
    let held = held.unwrap();
    assert!(held.is_write_vectored());
    assert!(held.downcast::<TcpStream>().is_ok());
    #[cfg(unix)]
    {
        let (unix, _there) = tokio::net::UnixStream::pair()?;
        assert_eq!(measure(|| drop(AnyIo::new(unix))).count_total, 0);
    }
    let (memory, _there) = duplex(64);
    let mut held = None;
    assert_eq!(measure(|| held = Some(AnyIo::new(memory))).count_total, 1);
    // Wrapping an `AnyIo` again does not allocate.
    assert_eq!(measure(|| held = held.take().map(|io| AnyIo::new(AnyIo::new(io)))).count_total, 0);
    assert_eq!(measure(|| held = held.take().map(|io| AnyIo::with_prefix("", io))).count_total, 0);
    assert!(held.is_some_and(|io| io.downcast::<DuplexStream>().is_ok()));
    Ok(())
}

#[tokio::test]
async fn downcast_succeeds_only_to_the_original_type() -> io::Result<()> {
    let (here, _there) = tcp().await?;
    let address = here.local_addr()?;
    let io = AnyIo::new(here);
    assert_eq!(io.downcast_ref::<TcpStream>().map(|io| io.local_addr().unwrap()), Some(address));
    assert!(io.downcast_ref::<DuplexStream>().is_none());
    let io = io.downcast::<DuplexStream>().unwrap_err();
    assert_eq!(io.downcast::<TcpStream>().unwrap().local_addr()?, address);

    #[cfg(unix)]
    {
        use tokio::net::UnixStream;

        let (here, _there) = UnixStream::pair()?;
        let io = AnyIo::new(here);
        assert!(io.downcast_ref::<UnixStream>().is_some());
        assert!(io.downcast_ref::<TcpStream>().is_none());
        let io = io.downcast::<TcpStream>().unwrap_err();
        assert!(io.downcast::<UnixStream>().is_ok());
    }

    let (here, there) = duplex(64);
    let io = AnyIo::new(here);
    assert!(io.downcast_ref::<DuplexStream>().is_some());
    assert!(io.downcast_ref::<TcpStream>().is_none());
    // Downcasting takes the type of the stream, not that of its internal box.
    assert!(io.downcast_ref::<Box<DuplexStream>>().is_none());
    let io = io.downcast::<TcpStream>().unwrap_err();
    let io = io.downcast::<Box<DuplexStream>>().unwrap_err();
    let here = io.downcast::<DuplexStream>().unwrap();
    check_both_directions(AnyIo::new(here), there).await
}

#[tokio::test]
async fn prefix_is_read_first_at_any_read_size() -> io::Result<()> {
    for size in 1..=12 {
        let (mut there, here) = duplex(64);
        there.write_all(b"stream").await?;
        drop(there);
        let mut here = AnyIo::with_prefix("two ", AnyIo::with_prefix("pre", here));
        let (mut all, mut piece) = (Vec::new(), vec![0; size]);
        loop {
            // A read into an empty buffer consumes nothing.
            assert_eq!(here.read(&mut []).await?, 0);
            match here.read(&mut piece).await? {
                0 => break,
                count => all.extend_from_slice(&piece[..count]),
            }
        }
        assert_eq!(all, b"two prestream", "{size}");
        assert_eq!(here.read(&mut piece).await?, 0);
    }
    Ok(())
}

/// A prefix whose reference count shows if it is still in memory.
struct Watched(Arc<[u8; 3]>);

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &*self.0
    }
}

#[tokio::test]
async fn prefix_is_freed_after_its_last_byte() -> io::Result<()> {
    let (_there, here) = duplex(64);
    let in_memory = Arc::new(*b"abc");
    let mut here = AnyIo::with_prefix(Bytes::from_owner(Watched(in_memory.clone())), here);
    here.read_exact(&mut [0; 2]).await?;
    assert_eq!(Arc::strong_count(&in_memory), 2);
    // The stream has no data, but the read returns the rest of the prefix without waiting.
    let mut room = [0; 9];
    assert_eq!(here.read(&mut room).await?, 1);
    assert_eq!(Arc::strong_count(&in_memory), 1);
    Ok(())
}

#[tokio::test]
async fn downcast_fails_while_prefix_bytes_are_unread() -> io::Result<()> {
    let (mut there, here) = duplex(64);
    there.write_all(b"def").await?;
    drop(there);
    let mut io = AnyIo::with_prefix("abc", here);
    for _ in 0..3 {
        // `downcast_ref` works regardless of unread prefix bytes.
        assert!(io.downcast_ref::<DuplexStream>().is_some());
        io = io.downcast::<DuplexStream>().unwrap_err();
        assert!(io.read_u8().await?.is_ascii_alphabetic());
    }
    assert!(io.downcast_ref::<DuplexStream>().is_some());
    let mut rest = String::new();
    io.downcast::<DuplexStream>().unwrap().read_to_string(&mut rest).await?;
    assert_eq!(rest, "def");

    let (tcp, _there) = tcp().await?;
    let io = AnyIo::with_prefix("abc", tcp).downcast::<TcpStream>().unwrap_err();
    let mut io = io.downcast::<DuplexStream>().unwrap_err();
    io.read_exact(&mut [0; 3]).await?;
    assert!(io.downcast::<DuplexStream>().unwrap_err().downcast::<TcpStream>().is_ok());
    Ok(())
}

/// A stream that records the calls it receives.
struct Recorder {
    calls: Arc<Mutex<Vec<&'static str>>>,
    vectored: bool,
}

impl Recorder {
    fn record<T>(&self, what: &'static str, answer: T) -> Poll<io::Result<T>> {
        self.calls.lock().unwrap().push(what);
        Poll::Ready(Ok(answer))
    }
}

impl AsyncRead for Recorder {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.record("read", ())
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.record("write", 1)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.record("write_vectored", 2)
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.record("flush", ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.record("shutdown", ())
    }
}

#[tokio::test]
async fn every_call_is_forwarded_unchanged() -> io::Result<()> {
    for (vectored, prefix) in [(false, ""), (true, ""), (false, "x"), (true, "x")] {
        let calls = Arc::default();
        let mut io = AnyIo::with_prefix(prefix, Recorder { calls: Arc::clone(&calls), vectored });
        assert_eq!(io.is_write_vectored(), vectored);
        io.flush().await?;
        assert_eq!(io.write(b"ab").await?, 1);
        let slices = [IoSlice::new(b"ab")];
        assert_eq!(poll_fn(|cx| Pin::new(&mut io).poll_write_vectored(cx, &slices)).await?, 2);
        assert_eq!(io.read(&mut [0; 9]).await?, prefix.len());
        assert_eq!(io.read(&mut [0; 9]).await?, 0);
        io.shutdown().await?;
        let reads = if prefix.is_empty() { 2 } else { 1 };
        let mut expected = vec!["flush", "write", "write_vectored"];
        expected.extend(vec!["read"; reads]);
        expected.push("shutdown");
        assert_eq!(*calls.lock().unwrap(), expected);
    }
    Ok(())
}

#[tokio::test]
async fn debug_names_the_stream_and_hides_bytes() -> io::Result<()> {
    let (here, _there) = duplex(64);
    let shown = format!("{:?}", AnyIo::with_prefix("secret", here));
    assert!(shown.contains("DuplexStream") && shown.contains("6 unread bytes"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    let (here, there) = tcp().await?;
    let shown = format!("{:?}", AnyIo::new(here));
    assert!(
        shown.contains("TcpStream") && shown.contains(&there.local_addr()?.port().to_string()),
        "{shown}"
    );
    Ok(())
}

#[test]
fn any_io_is_send_and_small() {
    fn anywhere<T: Send + Sync + Unpin + 'static>() {}
    anywhere::<AnyIo>();
    assert!(size_of::<AnyIo>() <= size_of::<TcpStream>() + size_of::<usize>());
}

/// A stream that claims bytes that it has not written.
struct Liar {
    is_set: bool,
}

impl AsyncRead for Liar {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = buf.initialize_unfilled().len();
        match self.is_set {
            false => buf.advance(count),
            true => buf.set_filled(buf.filled().len() + count),
        }
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn claimed_but_unwritten_bytes_are_zeros() {
    const COUNT: usize = 300 * 1024;
    for is_set in [false, true] {
        let secret = b"secret ".repeat(COUNT / 7);
        let codec = LineCodec::builder().max_block_length(COUNT).build();
        let neighbour = tokio::io::join(&secret[..], tokio::io::sink());
        assert!(
            Connection::from_io(neighbour, codec.clone()).read_bytes(secret.len()).await.unwrap() == secret
        );
        let liar = tokio::io::join(Liar { is_set }, tokio::io::sink());
        let claimed = Connection::from_io(liar, codec).read_bytes(COUNT).await.unwrap();
        assert!(claimed.iter().all(|byte| *byte == 0));
    }
}
