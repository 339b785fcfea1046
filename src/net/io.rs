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

/// A stream of any kind, as one type: the stream of a [`Connection`](crate::Connection), so that
/// one handler serves TCP, Unix sockets, TLS over either, and a test's pipe.
///
/// TCP and Unix streams are held as they are. Any other stream is in one box, however often it goes
/// through [`new`](Self::new).
pub struct AnyIo(Kind);

enum Kind {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Boxed(Box<dyn BoxedIo>),
    Prefixed(Box<Prefixed>),
}

/// Bytes that were read already, and the stream that continues them.
struct Prefixed {
    /// Not read yet. Holds no memory once it is empty.
    first: Bytes,
    io: AnyIo,
}

impl AnyIo {
    /// Erases the type of `io`. [`downcast`](Self::downcast) returns it.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static) -> Self {
        cast(io).unwrap_or_else(|io| Self(Kind::new(io)))
    }

    /// Puts `first` before what is read from `io`: bytes that were read already and belong to the
    /// next reader of the stream. Their memory is given back once they have been read. Writes go to
    /// `io`.
    ///
    /// ```
    /// use lineframe::AnyIo;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let (mut peer, io) = tokio::io::duplex(64);
    /// peer.write_all(b"to come").await?;
    /// drop(peer);
    /// let mut io = AnyIo::with_prefix("what came and what is ", io);
    /// let mut all = String::new();
    /// io.read_to_string(&mut all).await?;
    /// assert_eq!(all, "what came and what is to come");
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

    /// Returns the stream if it is a `T`: a [`TcpStream`] for its options, a TLS stream for its
    /// session. Do not read from it: it would skip the bytes of a [prefix](Self::with_prefix).
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
    /// `self`, unchanged, if it is not a `T`, or if unread bytes of a [prefix](Self::with_prefix)
    /// would be lost.
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

/// Returns `value` as a `T` if it is one, otherwise as it was.
pub(super) fn cast<S: 'static, T: 'static>(value: S) -> Result<T, S> {
    let mut value = Some(value);
    match (&mut value as &mut dyn Any).downcast_mut().and_then(Option::take) {
        Some(value) => Ok(value),
        None => Err(value.expect("it is taken only if it is a T")),
    }
}

/// A stream in a box.
trait BoxedIo: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {
    // Call these on the stream itself: the box implements the trait too.
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

/// Does the same for each kind of stream.
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

/// Returns what a socket's read returned. If that has to wait, and the poll [asks the
/// system](poll::with_system_io), returns what the system has. The task stays registered with Tokio.
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

/// As [`or_from_system`], for a write of `bytes`. Counts what the socket takes.
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

/// `MSG_NOSIGNAL`, as the standard library sends: a reset must not raise SIGPIPE.
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
    /// The kind of stream. Of a prefix, how much of it is unread, not its bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Tcp(io) => f.debug_tuple("AnyIo").field(io).finish(),
            #[cfg(unix)]
            Kind::Unix(io) => f.debug_tuple("AnyIo").field(io).finish(),
            Kind::Boxed(io) => write!(f, "AnyIo({})", (**io).type_name()),
            Kind::Prefixed(prefixed) => {
                write!(f, "{:?} after {} bytes", prefixed.io, prefixed.first.len())
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

/// The other end of a connection, as far as the system knows it.
///
/// `Display` is short, for a log:
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
    /// The address at the other end of a TCP connection, or the one that a proxy named.
    Tcp(SocketAddr),
    /// The process at the other end of a Unix socket, as it was when it connected or began to
    /// listen. Another process may have the socket by now.
    Unix {
        /// Its process id, if the system knows it.
        pid: Option<i32>,
        /// Its effective user id.
        uid: u32,
        /// Its effective group id.
        gid: u32,
    },
    /// Unknown: any other stream, or a peer that was gone before the system was asked.
    Other,
}

impl Peer {
    /// Returns the IP address, if the peer has one. `::ffff:10.0.0.7`, as an IPv6 socket shows an
    /// IPv4 address, is returned as `10.0.0.7`, so that it compares equal to an entry of a list.
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

    /// Asks the system about the stream.
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
                // With the scope of a link-local address.
                IpAddr::V6(_) => write!(f, "{address}"),
            },
            Self::Unix { pid: Some(pid), uid, .. } => write!(f, "unix pid {pid} uid {uid}"),
            Self::Unix { pid: None, uid, .. } => write!(f, "unix uid {uid}"),
            Self::Other => f.write_str("other"),
        }
    }
}
