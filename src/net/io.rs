use alloc::boxed::Box;
use core::any::{Any, type_name};
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io::{self, IoSlice, Read};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::poll;

/// A stream of any type, as one type. Requires the feature `net`.
///
/// It is the default stream of a [`Connection`](crate::Connection), so that one handler serves TCP,
/// Unix sockets, TLS over either of them, and the in-memory pipe of a test. TCP and Unix streams
/// are stored directly. Any other stream is boxed once, no matter how often it goes through
/// [`new`](Self::new).
pub struct AnyIo(Kind);

enum Kind {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Boxed(Box<dyn BoxedIo>),
    Prefixed(Box<Prefixed>),
}

/// A stream with bytes that were already read from it.
struct Prefixed {
    /// The bytes to read before the stream. Holds no memory when empty.
    first: Bytes,
    io: AnyIo,
}

impl AnyIo {
    /// Erases the type of `io`. [`downcast`](Self::downcast) returns the original stream.
    ///
    /// ```
    /// # async fn run(stream: tokio::net::TcpStream) -> std::io::Result<()> {
    /// let io = lineframe::AnyIo::new(stream);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static) -> Self {
        cast(io).unwrap_or_else(|io| Self(Kind::new(io)))
    }

    /// Puts `first` before the bytes that are read from `io`. Use it to pass on bytes that were
    /// already read. Their memory is freed after they have been read. Writes go to `io`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// use lineframe::AnyIo;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// let (mut peer, io) = tokio::io::duplex(64);
    /// peer.write_all(b"world").await?;
    /// drop(peer);
    /// let mut io = AnyIo::with_prefix("hello, ", io);
    /// let mut all = String::new();
    /// io.read_to_string(&mut all).await?;
    /// assert_eq!(all, "hello, world");
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_prefix(
        first: impl Into<Bytes>,
        io: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
    ) -> Self {
        let (first, io) = (first.into(), Self::new(io));
        match first.is_empty() {
            true => io,
            false => Self(Kind::Prefixed(Box::new(Prefixed { first, io }))),
        }
    }

    /// Returns a reference to the stream if it is a `T`, such as a [`TcpStream`] for its options or
    /// a TLS stream for its session. Do not read through this reference: such a read skips the
    /// bytes of a [prefix](Self::with_prefix).
    ///
    /// ```
    /// # async fn run(io: lineframe::AnyIo) -> std::io::Result<()> {
    /// if let Some(tcp) = io.downcast_ref::<tokio::net::TcpStream>() {
    ///     println!("{:?}", tcp.local_addr()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        let io: &dyn Any = match &self.0 {
            Kind::Tcp(io) => io,
            #[cfg(unix)]
            Kind::Unix(io) => io,
            Kind::Boxed(io) => (**io).as_any(),
            Kind::Prefixed(prefixed) => return prefixed.io.downcast_ref(),
        };
        io.downcast_ref()
    }

    /// Returns the stream itself if it is a `T`.
    ///
    /// # Errors
    ///
    /// Returns `self`, unchanged, if the stream is not a `T`, or if unread bytes of a
    /// [prefix](Self::with_prefix) would be lost.
    ///
    /// ```
    /// use lineframe::AnyIo;
    ///
    /// let io = AnyIo::new(tokio::io::empty());
    /// assert!(io.downcast::<tokio::io::Empty>().is_ok());
    /// ```
    pub fn downcast<T: 'static>(self) -> Result<T, Self> {
        match self.0 {
            Kind::Tcp(io) => cast(io).map_err(|io| Self(Kind::Tcp(io))),
            #[cfg(unix)]
            Kind::Unix(io) => cast(io).map_err(|io| Self(Kind::Unix(io))),
            Kind::Boxed(io) if (*io).as_any().is::<T>() => match io.into_any().downcast() {
                Ok(io) => Ok(*io),
                Err(_) => unreachable!("its type was checked"),
            },
            Kind::Boxed(io) => Err(Self(Kind::Boxed(io))),
            Kind::Prefixed(prefixed) if prefixed.first.is_empty() => prefixed.io.downcast(),
            Kind::Prefixed(prefixed) => Err(Self(Kind::Prefixed(prefixed))),
        }
    }
}

impl Kind {
    fn new(io: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static) -> Self {
        let io = match cast(io) {
            Ok(io) => return Self::Tcp(io),
            Err(io) => io,
        };
        #[cfg(unix)]
        let io = match cast(io) {
            Ok(io) => return Self::Unix(io),
            Err(io) => io,
        };
        Self::Boxed(Box::new(io))
    }
}

/// Returns `value` as a `T` if it is one, and otherwise unchanged.
pub(super) fn cast<S: 'static, T: 'static>(value: S) -> Result<T, S> {
    let mut value = Some(value);
    match (&mut value as &mut dyn Any).downcast_mut().and_then(Option::take) {
        Some(value) => Ok(value),
        None => Err(value.expect("it is taken only if it is a T")),
    }
}

/// A boxed stream.
trait BoxedIo: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {
    // Call these methods on the stream, not on the box, because the box implements the trait as
    // well.
    fn as_any(&self) -> &dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    fn type_name(&self) -> &'static str;
}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static> BoxedIo for S {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn type_name(&self) -> &'static str {
        type_name::<S>()
    }
}

/// Evaluates the same expression for each kind of stream.
macro_rules! each {
    ($any:expr, $io:ident => $does:expr) => {
        match &mut $any.0 {
            Kind::Tcp($io) => $does,
            #[cfg(unix)]
            Kind::Unix($io) => $does,
            Kind::Boxed($io) => $does,
            Kind::Prefixed(prefixed) => {
                let $io = &mut prefixed.io;
                $does
            }
        }
    };
}

impl AsyncRead for AnyIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Kind::Prefixed(prefixed) = &mut self.0 {
            let first = &mut prefixed.first;
            if !first.is_empty() {
                let count = first.len().min(buf.remaining());
                buf.put_slice(&first[..count]);
                first.advance(count);
                if first.is_empty() {
                    *first = Bytes::new();
                }
                return Poll::Ready(Ok(()));
            }
        }
        match &mut self.0 {
            Kind::Tcp(io) => or_from_system(Pin::new(&mut *io).poll_read(cx, buf), &*io, buf),
            #[cfg(unix)]
            Kind::Unix(io) => or_from_system(Pin::new(&mut *io).poll_read(cx, buf), &*io, buf),
            Kind::Boxed(io) => Pin::new(io).poll_read(cx, buf),
            Kind::Prefixed(prefixed) => Pin::new(&mut prefixed.io).poll_read(cx, buf),
        }
    }
}

/// Returns the result of a socket's read. If the read is pending and the poll [asks the
/// system](poll::with_system_io), reads from the system instead. The task stays registered with
/// Tokio.
fn or_from_system<'s, S>(
    read: Poll<io::Result<()>>,
    socket: &'s S,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>>
where
    SockRef<'s>: From<&'s S>,
{
    if read.is_ready() || !poll::asks_system() {
        return read;
    }
    match (&*SockRef::from(socket)).read(buf.initialize_unfilled()) {
        Ok(count) => {
            buf.advance(count);
            Poll::Ready(Ok(()))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            poll::system_found_nothing();
            Poll::Pending
        }
        Err(error) => Poll::Ready(Err(error)),
    }
}

/// Returns the result of a write of `bytes`, like [`or_from_system`] does for reads. Counts the
/// bytes that the socket accepts.
fn or_to_system<'s, S>(
    written: Poll<io::Result<usize>>,
    socket: &'s S,
    bytes: &[u8],
) -> Poll<io::Result<usize>>
where
    SockRef<'s>: From<&'s S>,
{
    let written = match written {
        Poll::Pending if poll::asks_system() => {
            match SockRef::from(socket).send_with_flags(bytes, NO_SIGNAL) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                sent => Poll::Ready(sent),
            }
        }
        written => written,
    };
    if let Poll::Ready(Ok(count)) = written {
        poll::has_taken(count);
    }
    written
}

/// `MSG_NOSIGNAL`, which the standard library also sets: a reset must not raise SIGPIPE.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NO_SIGNAL: i32 = 0x4000;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const NO_SIGNAL: i32 = 0;

impl AsyncWrite for AnyIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Tcp(io) => or_to_system(Pin::new(&mut *io).poll_write(cx, bytes), &*io, bytes),
            #[cfg(unix)]
            Kind::Unix(io) => or_to_system(Pin::new(&mut *io).poll_write(cx, bytes), &*io, bytes),
            Kind::Boxed(io) => Pin::new(io).poll_write(cx, bytes),
            Kind::Prefixed(prefixed) => Pin::new(&mut prefixed.io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        match &mut self.0 {
            Kind::Tcp(io) => or_to_system(Pin::new(&mut *io).poll_write_vectored(cx, slices), &*io, first),
            #[cfg(unix)]
            Kind::Unix(io) => or_to_system(Pin::new(&mut *io).poll_write_vectored(cx, slices), &*io, first),
            Kind::Boxed(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Kind::Prefixed(prefixed) => Pin::new(&mut prefixed.io).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Kind::Tcp(io) => io.is_write_vectored(),
            #[cfg(unix)]
            Kind::Unix(io) => io.is_write_vectored(),
            Kind::Boxed(io) => io.is_write_vectored(),
            Kind::Prefixed(prefixed) => prefixed.io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}

impl fmt::Debug for AnyIo {
    /// Prints the kind of stream and the number of unread bytes of a prefix, but not the bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Tcp(io) => f.debug_tuple("AnyIo").field(io).finish(),
            #[cfg(unix)]
            Kind::Unix(io) => f.debug_tuple("AnyIo").field(io).finish(),
            Kind::Boxed(io) => write!(f, "AnyIo({})", (**io).type_name()),
            Kind::Prefixed(prefixed) => {
                write!(f, "{:?} after a prefix of {} unread bytes", prefixed.io, prefixed.first.len())
            }
        }
    }
}

/// A reader and a writer as one stream. Shutdown drops the writer, which closes a pipe.
#[derive(Debug)]
pub(super) struct Joined<R, W> {
    reader: R,
    /// `None` after shutdown.
    writer: Option<W>,
}

impl<R, W> Joined<R, W> {
    pub(super) fn new(reader: R, writer: W) -> Self {
        Self { reader, writer: Some(writer) }
    }
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for Joined<R, W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl<R: Unpin, W: AsyncWrite + Unpin> AsyncWrite for Joined<R, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.writer {
            Some(writer) => Pin::new(writer).poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().map_or(Poll::Ready(Ok(())), |writer| Pin::new(writer).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(writer) = &mut self.writer {
            ready!(Pin::new(writer).poll_shutdown(cx))?;
            self.writer = None;
        }
        Poll::Ready(Ok(()))
    }
}

/// The other end of a connection, as far as the system knows it. Requires the feature `net`.
///
/// `Display` prints a short form for logs:
///
/// ```
/// use lineframe::Peer;
///
/// assert_eq!(Peer::Tcp(([10, 0, 0, 7], 51514).into()).to_string(), "10.0.0.7:51514");
/// let mapped = Peer::Tcp("[::ffff:10.0.0.7]:51514".parse().unwrap());
/// assert_eq!(mapped.to_string(), "10.0.0.7:51514");
/// assert_eq!(Peer::Unix { pid: Some(12), uid: 0, gid: 0 }.to_string(), "unix pid 12 uid 0");
/// assert_eq!(Peer::Unix { pid: None, uid: 1000, gid: 0 }.to_string(), "unix uid 1000");
/// assert_eq!(Peer::Other.to_string(), "other");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// The remote address of a TCP connection, or the client address that a proxy reported.
    Tcp(SocketAddr),
    /// The process at the other end of a Unix socket when it connected or started to listen.
    /// Another process may hold the socket by now.
    Unix {
        /// The process id, if the system knows it.
        pid: Option<i32>,
        /// The effective user id.
        uid: u32,
        /// The effective group id.
        gid: u32,
    },
    /// Unknown, because the stream is of another kind or the peer had disconnected before the
    /// system was asked.
    Other,
}

impl Peer {
    /// Returns the IP address, if the peer has one. An IPv4-mapped IPv6 address such as
    /// `::ffff:10.0.0.7` is returned as `10.0.0.7`, so that it compares equal to an entry of an
    /// allow list.
    ///
    /// ```
    /// use lineframe::Peer;
    ///
    /// let mapped = Peer::Tcp("[::ffff:10.0.0.7]:51514".parse().unwrap());
    /// assert_eq!(mapped.ip(), Some([10, 0, 0, 7].into()));
    /// assert_eq!(Peer::Other.ip(), None);
    /// ```
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix { .. } | Self::Other => None,
        }
    }

    /// Asks the system for the peer of the stream.
    pub(crate) fn of(io: &AnyIo) -> Self {
        if let Some(tcp) = io.downcast_ref::<TcpStream>() {
            return tcp.peer_addr().map_or(Self::Other, Self::Tcp);
        }
        #[cfg(unix)]
        if let Some(unix) = io.downcast_ref::<UnixStream>() {
            return unix.peer_cred().map_or(Self::Other, |process| Self::Unix {
                pid: process.pid(),
                uid: process.uid(),
                gid: process.gid(),
            });
        }
        Self::Other
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => match address.ip().to_canonical() {
                IpAddr::V4(ip) => write!(f, "{ip}:{}", address.port()),
                // Includes the scope of a link-local address.
                IpAddr::V6(_) => write!(f, "{address}"),
            },
            Self::Unix { pid: Some(pid), uid, .. } => write!(f, "unix pid {pid} uid {uid}"),
            Self::Unix { pid: None, uid, .. } => write!(f, "unix uid {uid}"),
            Self::Other => f.write_str("other"),
        }
    }
}
