use alloc::boxed::Box;
use core::any::{Any, type_name};
use core::cell::Cell;
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::io::{self, IoSlice, Read};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

/// A stream of any kind, as one type: what [`Connection`](crate::Connection) names, so that one handler serves TCP,
/// Unix sockets, TLS over either, and a test's pipe.
///
/// TCP and Unix streams are held as they are; any other stream is in a box, one, however often it goes through
/// [`new`](Self::new). It reads and writes as the stream in it does, and drops it when dropped.
pub struct AnyIo(Inner);

enum Inner {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Boxed(Box<dyn Stream>),
    Prefixed(Box<Prefixed>),
}

/// Bytes that were read already, and the stream behind them.
struct Prefixed {
    /// What is still to be read of them. Holds no memory once it is empty.
    first: Bytes,
    io: AnyIo,
}

impl AnyIo {
    /// Holds `io` and forgets its type; [`downcast`](Self::downcast) finds it again.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static) -> Self {
        cast(io).unwrap_or_else(|io| Self(Inner::new(io)))
    }

    /// Holds `io` with `first` before it: those bytes are read first, then what comes out of `io`. For bytes that were
    /// read already and belong to whoever is to read the stream next.
    ///
    /// Their memory is given back when the last of them has been read. Writing is not touched.
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
            false => Self(Inner::Prefixed(Box::new(Prefixed { first, io }))),
        }
    }

    /// The stream, where it is a `T`: a [`TcpStream`] for its options, a TLS stream for its session. Of one with a
    /// prefix, it is the stream behind that, whether the prefix has been read or not; so read through [`AnyIo`] and not
    /// through this.
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        let io: &dyn Any = match &self.0 {
            Inner::Tcp(io) => io,
            #[cfg(unix)]
            Inner::Unix(io) => io,
            Inner::Boxed(io) => (**io).as_any(),
            Inner::Prefixed(prefixed) => return prefixed.io.downcast_ref(),
        };
        io.downcast_ref()
    }

    /// The stream itself, where it is a `T`.
    ///
    /// # Errors
    ///
    /// Gives back what it was called on, unchanged, where that is not a `T`, or where bytes of a
    /// [prefix](Self::with_prefix) are still to be read, which would be lost.
    pub fn downcast<T: 'static>(self) -> Result<T, Self> {
        match self.0 {
            Inner::Tcp(io) => cast(io).map_err(|io| Self(Inner::Tcp(io))),
            #[cfg(unix)]
            Inner::Unix(io) => cast(io).map_err(|io| Self(Inner::Unix(io))),
            Inner::Boxed(io) if (*io).as_any().is::<T>() => match io.into_any().downcast() {
                Ok(io) => Ok(*io),
                Err(_) => unreachable!("just asked"),
            },
            Inner::Boxed(io) => Err(Self(Inner::Boxed(io))),
            Inner::Prefixed(prefixed) if prefixed.first.is_empty() => prefixed.io.downcast(),
            Inner::Prefixed(prefixed) => Err(Self(Inner::Prefixed(prefixed))),
        }
    }
}

impl Inner {
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

/// `value` as the `T` that it is, or as it was.
pub(super) fn cast<S: 'static, T: 'static>(value: S) -> Result<T, S> {
    let mut value = Some(value);
    match (&mut value as &mut dyn Any).downcast_mut().and_then(Option::take) {
        Some(value) => Ok(value),
        None => Err(value.expect("taken where it is a T only")),
    }
}

/// What is behind the box.
trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {
    // Called on the stream itself: the box is one of these too.
    fn as_any(&self) -> &dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    fn type_name(&self) -> &'static str;
}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static> Stream for S {
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

/// Does the same to each kind of stream; to what is behind the prefix where there is one.
macro_rules! each {
    ($any:expr, $io:ident => $does:expr) => {
        match &mut $any.0 {
            Inner::Tcp($io) => $does,
            #[cfg(unix)]
            Inner::Unix($io) => $does,
            Inner::Boxed($io) => $does,
            Inner::Prefixed(prefixed) => {
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
        if let Inner::Prefixed(prefixed) = &mut self.0 {
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
            Inner::Tcp(io) => or_from_the_system(Pin::new(&mut *io).poll_read(cx, buf), &*io, buf),
            #[cfg(unix)]
            Inner::Unix(io) => or_from_the_system(Pin::new(&mut *io).poll_read(cx, buf), &*io, buf),
            Inner::Boxed(io) => Pin::new(io).poll_read(cx, buf),
            Inner::Prefixed(prefixed) => Pin::new(&mut prefixed.io).poll_read(cx, buf),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Asks {
    No,
    TheSystem,
    /// And the system has said that nothing is there.
    InVain,
}

std::thread_local! {
    static ASKS: Cell<Asks> = const { Cell::new(Asks::No) };
}

/// Within `read`, a socket that has nothing to read by what Tokio knows asks the system, however deep the [`AnyIo`] that holds it is
/// in other streams. Gives also whether the system has said that nothing is there.
///
/// Tokio learns what has come when a thread of its own asks the system for all sockets, which may be a while after it came: too
/// late to tell what came before this moment from what comes after it.
pub(super) fn asking_the_system<T>(read: impl FnOnce() -> T) -> (T, bool) {
    /// Also where the stream panics.
    struct Reset(Asks);
    impl Drop for Reset {
        fn drop(&mut self) {
            ASKS.set(self.0);
        }
    }
    let _reset = Reset(ASKS.replace(Asks::TheSystem));
    let done = read();
    (done, ASKS.get() == Asks::InVain)
}

/// What a socket's read gave; where that has to wait and it is [asked for](asking_the_system), what the system has. The task
/// stays registered with Tokio.
fn or_from_the_system<'s, S>(
    done: Poll<io::Result<()>>,
    socket: &'s S,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>>
where
    SockRef<'s>: From<&'s S>,
{
    if done.is_ready() || ASKS.get() == Asks::No {
        return done;
    }
    match (&*SockRef::from(socket)).read(buf.initialize_unfilled()) {
        Ok(count) => {
            buf.advance(count);
            Poll::Ready(Ok(()))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            ASKS.set(Asks::InVain);
            Poll::Pending
        }
        Err(error) => Poll::Ready(Err(error)),
    }
}

impl AsyncWrite for AnyIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Inner::Tcp(io) => io.is_write_vectored(),
            #[cfg(unix)]
            Inner::Unix(io) => io.is_write_vectored(),
            Inner::Boxed(io) => io.is_write_vectored(),
            Inner::Prefixed(prefixed) => prefixed.io.is_write_vectored(),
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
    /// Which stream it is. Of a prefix, how much of it is still to be read, and not what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Tcp(io) => f.debug_tuple("AnyIo").field(io).finish(),
            #[cfg(unix)]
            Inner::Unix(io) => f.debug_tuple("AnyIo").field(io).finish(),
            Inner::Boxed(io) => write!(f, "AnyIo({})", (**io).type_name()),
            Inner::Prefixed(prefixed) => {
                write!(f, "{:?} behind {} bytes", prefixed.io, prefixed.first.len())
            }
        }
    }
}
