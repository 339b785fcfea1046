use std::boxed::Box;
use std::format;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::vec::Vec;

use crate::connection::{Connection, Error, clock};

type Handling = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// A handler that answers each line with what `f` makes of it, and a bad line with what is wrong with it.
///
/// `f` is cloned for each connection: what it captures is the connection's own state. A reply that cannot be framed, because
/// it is too long or would be read as two lines, is replaced by an error line.
///
/// Replies to lines that came together go out together: when all of them are answered, and meanwhile about once a millisecond. Where
/// `f` takes long for a line, at most eight replies wait for it.
///
/// ```no_run
/// # async fn run(listener: tokio::net::TcpListener) {
/// use lineframe::{Server, reply};
///
/// let upper = reply(|line| line.to_ascii_uppercase());
/// Server::new().serve(listener, upper, std::future::pending::<()>()).await;
/// # }
/// ```
pub fn reply<R: AsRef<[u8]> + Send>(
    mut f: impl FnMut(&[u8]) -> R + Clone + Send + Sync + 'static,
) -> impl Fn(Connection) -> Handling + Clone + Send + Sync + 'static {
    reply_into(move |line, reply| reply.extend_from_slice(f(line).as_ref()))
}

/// [`reply`] without an allocation for each line: `f` appends its reply to an empty `Vec`.
pub fn reply_into(
    f: impl FnMut(&[u8], &mut Vec<u8>) + Clone + Send + Sync + 'static,
) -> impl Fn(Connection) -> Handling + Clone + Send + Sync + 'static {
    move |connection| Box::pin(Replies { connection, f: f.clone() })
}

/// What [`reply_into`] does with a connection. By hand, since an async fn would keep room for all of it while it waits.
struct Replies<F> {
    connection: Connection,
    f: F,
}

// Nothing in it is pinned.
impl<F> Unpin for Replies<F> {}

impl<F: FnMut(&[u8], &mut Vec<u8>)> Future for Replies<F> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        clock::within_poll(|| self.poll_replies(cx))
    }
}

impl<F: FnMut(&[u8], &mut Vec<u8>)> Replies<F> {
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
                    Ok(line) => f(line, &mut reply),
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
