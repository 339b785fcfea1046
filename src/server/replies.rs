use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use super::Reply;
use crate::connection::clock::Seen;
use crate::connection::{Answers, Bytewise, Connection};

/// A handler that answers each line with what `f` makes of it, and a bad line with what is wrong with it.
///
/// `f` is cloned for each connection: what it captures is the connection's own state. A reply that cannot be framed, because
/// it is too long or would be read as two lines, is replaced by an error line; where that is too long as well, the connection ends
/// with [`Error::Encode`](crate::Error::Encode).
///
/// Replies to lines that came together go out together: when all of them are answered, and meanwhile about once a millisecond. Where
/// `f` takes long for a line, at most 32 replies wait for it, the fewer the fewer lines were answered quickly before.
///
/// ```no_run
/// # async fn run(listener: tokio::net::TcpListener) {
/// use lineframe::{Server, reply};
///
/// let upper = reply(|line| line.to_ascii_uppercase());
/// Server::new().serve(listener, upper, std::future::pending::<()>()).await;
/// # }
/// ```
pub fn reply<R, F>(f: F) -> impl Fn(Connection) -> Replies<Returned<R, F>> + Clone + Send + Sync + 'static
where
    R: AsRef<[u8]> + Send + 'static,
    F: FnMut(&[u8]) -> R + Clone + Send + Sync + 'static,
{
    move |connection| Replies { connection, f: Returned(f.clone(), PhantomData) }
}

/// [`reply`] without an allocation or a copy for each line: `f` appends its reply to what goes out.
///
/// ```no_run
/// # async fn run(listener: tokio::net::TcpListener) {
/// use lineframe::{Server, reply_into};
///
/// let upper = reply_into(|line, reply| {
///     reply.extend_from_slice(line);
///     reply.make_ascii_uppercase();
/// });
/// Server::new().serve(listener, upper, std::future::pending::<()>()).await;
/// # }
/// ```
pub fn reply_into<F>(f: F) -> impl Fn(Connection) -> Replies<F> + Clone + Send + Sync + 'static
where
    F: FnMut(&[u8], &mut Reply<'_>) + Clone + Send + Sync + 'static,
{
    move |connection| Replies { connection, f: f.clone() }
}

/// A handler that answers each line with its own bytes, each as `map` makes it, and a bad line with what is wrong with it: a [`reply`] for
/// less, since many lines are mapped at once, with their terminators.
///
/// `map` is called in any order, for bytes of no line as well, and at first for each of the 256; of the same byte it has to make the
/// same each time. Where what it makes of a line [cannot be one](crate::EncodeError), as with a terminator in it, that reply is replaced by an
/// error line.
///
/// Replies go out when all lines that a read has brought are answered, however long `map` takes.
///
/// ```no_run
/// # async fn run(listener: tokio::net::TcpListener) {
/// use lineframe::{Server, reply_bytewise};
///
/// let upper = reply_bytewise(|byte| byte.to_ascii_uppercase());
/// Server::new().serve(listener, upper, std::future::pending::<()>()).await;
/// # }
/// ```
pub fn reply_bytewise<F>(map: F) -> impl Fn(Connection) -> BytewiseReplies<F> + Clone + Send + Sync + 'static
where
    F: Fn(u8) -> u8 + Clone + Send + Sync + 'static,
{
    move |mut connection| BytewiseReplies {
        bytewise: Bytewise::new(map.clone(), &mut connection),
        connection,
    }
}

/// What [`reply`] and [`reply_into`] do with a connection. By hand, since an async fn would keep room for all of it while it waits,
/// and with a type that is known, so that it needs no memory of its own.
#[must_use = "futures do nothing unless polled"]
pub struct Replies<F> {
    connection: Connection,
    f: F,
}

/// Of a function that returns its reply.
pub struct Returned<R, F>(F, PhantomData<fn() -> R>);

/// What writes a reply.
pub trait Answer {
    fn answer(&mut self, line: &[u8], reply: &mut Reply<'_>);
}

impl<R: AsRef<[u8]>, F: FnMut(&[u8]) -> R> Answer for Returned<R, F> {
    #[inline]
    fn answer(&mut self, line: &[u8], reply: &mut Reply<'_>) {
        reply.extend_from_slice(self.0(line).as_ref());
    }
}

impl<F: FnMut(&[u8], &mut Reply<'_>)> Answer for F {
    #[inline]
    fn answer(&mut self, line: &[u8], reply: &mut Reply<'_>) {
        self(line, reply);
    }
}

// Nothing in it is pinned.
impl<F> Unpin for Replies<F> {}

impl<F: Answer> Future for Replies<F> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { connection, f } = &mut *self;
        let mut answering = Answering { f, seen: Seen::default(), due_at: None };
        loop {
            match ready!(connection.poll_answered(cx, &mut answering))? {
                None => return Poll::Ready(Ok(())),
                Some(()) if answering.is_due() => connection.send_queued(cx)?,
                Some(()) => {}
            }
        }
    }
}

/// The lines that came together.
struct Answering<'a, F> {
    f: &'a mut F,
    seen: Seen,
    /// When replies go out although there are more lines to answer. `None`: now.
    due_at: Option<Instant>,
}

impl<F> Answering<'_, F> {
    fn is_due(&self) -> bool {
        self.due_at.is_none()
    }
}

impl<F: Answer> Answers for Answering<'_, F> {
    #[inline]
    fn begin(&mut self, now: Option<Instant>) {
        self.due_at = Some(self.seen.begin(now) + Duration::from_millis(1));
    }

    #[inline(always)]
    fn line(&mut self, line: &[u8], reply: &mut BytesMut) {
        self.f.answer(line, &mut Reply::from(reply));
    }

    #[inline(always)]
    fn goes_on(&mut self, is_last: bool) -> bool {
        // Behind it there is no line to wait for.
        if is_last {
            return true;
        }
        let Some(now) = self.seen.look() else { return true };
        self.due_at = self.due_at.filter(|due_at| now <= *due_at);
        !self.is_due()
    }
}

/// What [`reply_bytewise`] does with a connection.
#[must_use = "futures do nothing unless polled"]
pub struct BytewiseReplies<F> {
    connection: Connection,
    bytewise: Bytewise<F>,
}

// Nothing in it is pinned.
impl<F> Unpin for BytewiseReplies<F> {}

impl<F: Fn(u8) -> u8> Future for BytewiseReplies<F> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { connection, bytewise } = &mut *self;
        while ready!(connection.poll_bytewise(cx, bytewise))?.is_some() {}
        Poll::Ready(Ok(()))
    }
}
