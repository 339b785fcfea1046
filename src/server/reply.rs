use std::format;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::vec::Vec;

use crate::connection::{Connection, Error, clock};

/// A handler that answers each line with what `f` makes of it, and a bad line with what is wrong with it.
///
/// `f` is cloned for each connection: what it captures is the connection's own state. A reply that cannot be framed, because
/// it is too long or would be read as two lines, is replaced by an error line.
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

/// [`reply`] without an allocation for each line: `f` appends its reply to an empty `Vec`.
pub fn reply_into<F>(f: F) -> impl Fn(Connection) -> Replies<F> + Clone + Send + Sync + 'static
where
    F: FnMut(&[u8], &mut Vec<u8>) + Clone + Send + Sync + 'static,
{
    move |connection| Replies { connection, f: f.clone() }
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

/// What puts a reply into an empty `Vec`.
pub trait Answer {
    fn answer(&mut self, line: &[u8], reply: &mut Vec<u8>);
}

impl<R: AsRef<[u8]>, F: FnMut(&[u8]) -> R> Answer for Returned<R, F> {
    #[inline]
    fn answer(&mut self, line: &[u8], reply: &mut Vec<u8>) {
        reply.extend_from_slice(self.0(line).as_ref());
    }
}

impl<F: FnMut(&[u8], &mut Vec<u8>)> Answer for F {
    #[inline]
    fn answer(&mut self, line: &[u8], reply: &mut Vec<u8>) {
        self(line, reply);
    }
}

// Nothing in it is pinned.
impl<F> Unpin for Replies<F> {}

impl<F: Answer> Future for Replies<F> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        clock::within_poll(|| self.poll_replies(cx))
    }
}

impl<F: Answer> Replies<F> {
    fn poll_replies(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { connection, f } = self;
        let mut reply = Vec::new();
        loop {
            let (mut due_at, mut is_due) = (None, false);
            let mut refused = None;
            let shown = ready!(connection.poll_answered(cx, |line, queue| {
                let due_at = *due_at.get_or_insert_with(|| clock::begin() + Duration::from_millis(1));
                reply.clear();
                match line {
                    Ok(line) => f.answer(line, &mut reply),
                    Err(bad) => reply.extend_from_slice(bad.reply().as_bytes()),
                }
                if let Err(error) = queue.push(&reply) {
                    refused = queue.push(format!("error: reply refused: {error}").as_bytes()).err();
                }
                // Replies go out although there are more lines to answer.
                is_due = clock::now() > due_at;
                refused.is_none() && !is_due
            }))?;
            if let Some(error) = refused {
                return Poll::Ready(Err(Error::Encode(error).into()));
            }
            if shown.is_none() {
                return Poll::Ready(Ok(()));
            }
            if is_due {
                connection.send_queued(cx)?;
            }
        }
    }
}
