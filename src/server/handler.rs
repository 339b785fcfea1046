use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::time::Instant;

use crate::error::EncodeError;
use crate::net::{
    AnyIo, Connection, Duplex, Error, MAX_REPLY_DELAY, PollClock, ReadBuffer, begin_turn, poll_turn,
};

/// Makes a handler from a function that returns the reply to a line. Requires the feature `net`.
/// The handler answers a bad line with a description of its error.
///
/// `f` is cloned for each connection, so its captured variables are the state of one connection. If
/// a reply cannot be one line, because it is too long or contains a terminator, the handler sends
/// an error line instead. If the error line is too long as well, the connection ends with
/// [`Error::Encode`](crate::Error::Encode).
///
/// Replies to lines that arrive together are sent together: after the last of these lines is
/// answered, and about once per millisecond until then. If `f` is slow, at most 32 replies wait for
/// each other.
///
/// ```no_run
/// # async fn run(listener: tokio::net::TcpListener) {
/// use lineframe::{Server, reply};
///
/// let upper = reply(|line| line.to_ascii_uppercase());
/// Server::new().serve(listener, upper).await;
/// # }
/// ```
pub fn reply<R, F>(f: F) -> impl Fn(Connection) -> Replies<Returned<R, F>> + Clone + Send + Sync + 'static
where
    R: AsRef<[u8]> + Send + 'static,
    F: FnMut(&[u8]) -> R + Clone + Send + Sync + 'static,
{
    move |connection| Replies { connection, f: Returned(f.clone(), PhantomData) }
}

/// Makes a handler from a function that appends the reply to the output. Requires the feature
/// `net`. The same as [`reply`], but without an allocation or a copy per line.
///
/// ```no_run
/// # async fn run(listener: tokio::net::TcpListener) {
/// use lineframe::{Server, reply_into};
///
/// let upper = reply_into(|line, reply| {
///     reply.extend_from_slice(line);
///     reply.make_ascii_uppercase();
/// });
/// Server::new().serve(listener, upper).await;
/// # }
/// ```
pub fn reply_into<F>(f: F) -> impl Fn(Connection) -> Replies<F> + Clone + Send + Sync + 'static
where
    F: FnMut(&[u8], &mut Reply<'_>) + Clone + Send + Sync + 'static,
{
    move |connection| Replies { connection, f: f.clone() }
}

/// The future of a handler made by [`reply`] or [`reply_into`]. Requires the feature `net`.
#[must_use = "futures do nothing unless polled"]
pub struct Replies<F> {
    connection: Connection,
    f: F,
}

/// A wrapper for the function that was passed to [`reply`]. Requires the feature `net`.
pub struct Returned<R, F>(F, PhantomData<fn() -> R>);

/// A function that writes the reply to a line, as passed to [`reply`] or [`reply_into`]. Requires
/// the feature `net`.
pub trait Answer {
    /// Appends the reply to `line`.
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

// No field is pinned.
impl<F> Unpin for Replies<F> {}

impl<F: Answer> Future for Replies<F> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { connection, f } = &mut *self;
        let duplex = connection.duplex_mut();
        let mut unread = ReadBuffer::take();
        let polled = duplex.poll_step(|duplex| poll_replies(duplex, &mut unread, f, cx));
        duplex.reader.keep(&mut unread);
        polled.map_err(io::Error::from)
    }
}

/// Answers lines until the end of the stream. Returns `Pending` when it has to wait.
fn poll_replies(
    duplex: &mut Duplex<AnyIo>,
    unread: &mut ReadBuffer,
    f: &mut impl Answer,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Error>> {
    let mut clock = PollClock::default();
    let mut read_at = None;
    loop {
        ready!(duplex.poll_before_reply(cx))?;
        let answered = answer_items(duplex, unread, f, &mut clock, read_at.take()).map_err(Error::Encode)?;
        let Some(is_due) = answered else {
            if !ready!(duplex.poll_more(unread, cx))? {
                return Poll::Ready(Ok(()));
            }
            read_at = duplex.reader.read_at();
            continue;
        };
        if is_due || duplex.writer.is_full() {
            duplex.writer.send_now(&mut duplex.io, cx)?;
            if poll_turn(Some(clock.now()), cx).is_pending() {
                duplex.reader.pause(unread);
                return Poll::Pending;
            }
        }
    }
}

/// Answers buffered items until the output is full or the replies are due. `read_at` is the time of
/// the read if the items were read just now. Returns whether replies are due, or `None` if there
/// was no item.
fn answer_items(
    duplex: &mut Duplex<AnyIo>,
    unread: &mut ReadBuffer,
    f: &mut impl Answer,
    clock: &mut PollClock,
    read_at: Option<Instant>,
) -> Result<Option<bool>, EncodeError> {
    let Duplex { reader, writer, .. } = duplex;
    if !reader.may_have_item(unread) {
        return Ok(None);
    }
    let begun = clock.restart(read_at);
    begin_turn(begun);
    let due_at = begun + MAX_REPLY_DELAY;
    let max_bad_lines = reader.max_bad_lines();
    let (mut count, mut is_due, mut queued) = (0, false, Ok(()));
    let mut items = reader.items(unread);
    let bytes = items.bytes();
    while let Some(item) = items.next() {
        count += 1;
        let is_bad = item.is_bad();
        queued = writer.queue_reply(|reply| match is_bad {
            false => f.answer(item.content(bytes), &mut Reply::from(reply)),
            true => reply.extend_from_slice(item.error_reply(bytes).as_bytes()),
        });
        let is_over = is_bad && items.bad_items() > max_bad_lines;
        if queued.is_err() || writer.is_full() || is_over {
            break;
        }
        // The last line does not need a check: its reply is sent next anyway.
        if item.end() < bytes.len() && clock.now() > due_at {
            is_due = true;
            break;
        }
    }
    let consumed = items.consumed();
    drop(items);
    reader.advance(unread, count, consumed);
    queued.map(|()| (count > 0).then_some(is_due))
}

/// The reply to a line in a handler made by [`reply_into`](super::reply_into). Requires the feature
/// `net`.
///
/// A reply is empty at first, and a function appends to it as to a `Vec`. It is the end of the
/// connection's output buffer, so the reply is not copied again. After the function has returned,
/// the handler checks the reply and adds the terminator.
///
/// A function that writes replies can be tested without a connection:
///
/// ```
/// use bytes::BytesMut;
/// use lineframe::Reply;
///
/// fn upper(line: &[u8], reply: &mut Reply<'_>) {
///     reply.extend_from_slice(line);
///     reply.make_ascii_uppercase();
/// }
///
/// let mut bytes = BytesMut::from("before, ");
/// upper(b"reply", &mut Reply::from(&mut bytes));
/// assert_eq!(bytes, "before, REPLY");
/// ```
pub struct Reply<'a> {
    bytes: &'a mut BytesMut,
    start: usize,
}

impl Reply<'_> {
    /// Appends bytes.
    ///
    /// ```
    /// # let mut bytes = bytes::BytesMut::new();
    /// let mut reply = lineframe::Reply::from(&mut bytes);
    /// reply.extend_from_slice(b"OK");
    /// assert_eq!(*reply, *b"OK");
    /// ```
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends one byte.
    ///
    /// ```
    /// # let mut bytes = bytes::BytesMut::new();
    /// let mut reply = lineframe::Reply::from(&mut bytes);
    /// reply.push(b'+');
    /// assert_eq!(*reply, *b"+");
    /// ```
    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.extend_from_slice(&[byte]);
    }

    /// Reserves capacity for `additional` more bytes.
    ///
    /// # Panics
    ///
    /// Panics if the new capacity overflows, as `Vec::reserve` does.
    ///
    /// ```
    /// # let mut bytes = bytes::BytesMut::new();
    /// let mut reply = lineframe::Reply::from(&mut bytes);
    /// reply.reserve(1024);
    /// ```
    #[inline]
    pub fn reserve(&mut self, additional: usize) {
        self.bytes.reserve(additional);
    }

    /// Keeps the first `length` bytes of the reply.
    ///
    /// ```
    /// # let mut bytes = bytes::BytesMut::new();
    /// let mut reply = lineframe::Reply::from(&mut bytes);
    /// reply.extend_from_slice(b"hello");
    /// reply.truncate(4);
    /// assert_eq!(*reply, *b"hell");
    /// ```
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(self.start.saturating_add(length));
    }

    /// Removes all bytes of the reply.
    ///
    /// ```
    /// # let mut bytes = bytes::BytesMut::new();
    /// let mut reply = lineframe::Reply::from(&mut bytes);
    /// reply.extend_from_slice(b"hello");
    /// reply.clear();
    /// assert!(reply.is_empty());
    /// ```
    #[inline]
    pub fn clear(&mut self) {
        self.truncate(0);
    }
}

/// Creates an empty reply after the bytes that the buffer already holds.
impl<'a> From<&'a mut BytesMut> for Reply<'a> {
    #[inline]
    fn from(bytes: &'a mut BytesMut) -> Self {
        let start = bytes.len();
        Self { bytes, start }
    }
}

impl Deref for Reply<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl DerefMut for Reply<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

impl fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

impl Extend<u8> for Reply<'_> {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.bytes.extend(bytes);
    }
}

impl<'b> Extend<&'b u8> for Reply<'_> {
    fn extend<I: IntoIterator<Item = &'b u8>>(&mut self, bytes: I) {
        self.bytes.extend(bytes);
    }
}

/// Appends bytes, for use with `write!`. Never fails.
impl io::Write for Reply<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Appends text, for use with `write!`. Never fails.
impl fmt::Write for Reply<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
