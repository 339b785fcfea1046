use std::boxed::Box;
use std::format;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::vec::Vec;

use tokio::time::Instant;

use crate::codec::Batch;
use crate::connection::{Connection, Error};

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
    move |connection| Box::pin(Replies { connection, f: f.clone(), work: None })
}

/// What [`reply_into`] does with a connection. By hand, since an async fn would keep room for all of it while it waits.
struct Replies<F> {
    connection: Connection,
    f: F,
    /// In a box of its own: an idle connection has none.
    work: Option<Box<Work>>,
}

/// A batch that is being answered.
struct Work {
    batch: Batch,
    /// To the first line of the batch.
    reply: Vec<u8>,
    made: Made,
    pace: Pace,
}

/// When replies go out although there are more lines to answer: about a millisecond after the last have gone out. To look at the
/// clock costs as much as a short line: behind one that was answered quickly it is not done for seven.
struct Pace {
    sent_at: Instant,
    unlooked: u8,
}

impl Pace {
    fn new() -> Self {
        Self { sent_at: Instant::now(), unlooked: 0 }
    }

    /// Asked after each line.
    fn is_due(&mut self) -> bool {
        if self.unlooked > 0 {
            self.unlooked -= 1;
            return false;
        }
        let now = Instant::now();
        let is_due = now.duration_since(self.sent_at) > Duration::from_millis(1);
        match is_due {
            true => self.sent_at = now,
            false => self.unlooked = 7,
        }
        is_due
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Made {
    Nothing,
    Reply,
    /// An error line in place of a reply that could not be framed.
    Refusal,
}

// Nothing in it is pinned.
impl<F> Unpin for Replies<F> {}

impl<F: FnMut(&[u8], &mut Vec<u8>)> Future for Replies<F> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            ready!(this.poll_answered(cx))?;
            this.work = None;
            match ready!(pin!(this.connection.next_batch()).poll(cx))? {
                None => return Poll::Ready(Ok(())),
                Some(batch) => {
                    let (reply, made, pace) = (Vec::new(), Made::Nothing, Pace::new());
                    this.work = Some(Box::new(Work { batch, reply, made, pace }));
                }
            }
        }
    }
}

impl<F: FnMut(&[u8], &mut Vec<u8>)> Replies<F> {
    /// Writes the replies to the batch, if there is one.
    fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self { connection, f, work: Some(work) } = self else { return Poll::Ready(Ok(())) };
        let Work { batch, reply, made, pace } = &mut **work;
        while let Some(line) = batch.first() {
            if *made == Made::Nothing {
                reply.clear();
                match line {
                    Ok(line) => f(line, reply),
                    Err(bad) => reply.extend_from_slice(bad.reply().as_bytes()),
                }
                *made = Made::Reply;
            }
            match ready!(connection.poll_queue(reply, cx)) {
                Err(Error::Encode(refused)) if *made == Made::Reply => {
                    *reply = format!("error: reply refused: {refused}").into_bytes();
                    *made = Made::Refusal;
                }
                queued => {
                    queued?;
                    *made = Made::Nothing;
                    batch.pass();
                    if pace.is_due() {
                        connection.send_queued(cx)?;
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
