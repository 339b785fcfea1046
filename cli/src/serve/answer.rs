//! What answers a client: a handler of ours, or a command.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use clap::ValueEnum;
use lineframe::{Connection, Error, reply_into};

use super::exec::Exec;
use super::log;
use crate::address::Address;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Handler {
    /// ASCII letters in upper case, other bytes as they are
    Upper,
    /// Unicode upper case, of lines that are UTF-8; a reply may be three times as long
    UpperUnicode,
    /// The line as it is
    Echo,
}

impl Handler {
    /// Puts the reply to `line` into `reply`, which is empty.
    fn reply(self, line: &[u8], reply: &mut Vec<u8>) {
        match self {
            Self::Upper => make_upper(line, reply),
            Self::UpperUnicode => match std::str::from_utf8(line) {
                Ok(text) => reply.extend_from_slice(text.to_uppercase().as_bytes()),
                Err(error) => {
                    let (length, at) = (line.len(), error.valid_up_to());
                    let bad = format!("error: line of {length} bytes that is not UTF-8 from byte {at} on");
                    reply.extend_from_slice(bad.as_bytes());
                }
            },
            Self::Echo => reply.extend_from_slice(line),
        }
    }
}

/// Puts `line` in upper case into `upper`, which is empty. As `make_ascii_uppercase` of a copy, which reads again what has just been
/// written, and takes what is left over behind its last thirty-two bytes one by one: here the last bytes are taken together,
/// some of them a second time.
fn make_upper(line: &[u8], upper: &mut Vec<u8>) {
    fn in_pieces<const SIZE: usize>(
        line: &[u8],
        upper: &mut Vec<u8>,
        make: impl Fn([u8; SIZE]) -> [u8; SIZE],
    ) -> bool {
        let Some(last) = line.last_chunk() else { return false };
        for piece in line.chunks_exact(SIZE).filter_map(|piece| piece.first_chunk()) {
            upper.extend_from_slice(&make(*piece));
        }
        if upper.len() < line.len() {
            upper.truncate(line.len() - SIZE);
            upper.extend_from_slice(&make(*last));
        }
        true
    }
    fn many<const SIZE: usize>(mut piece: [u8; SIZE]) -> [u8; SIZE] {
        piece.make_ascii_uppercase();
        piece
    }
    upper.reserve(line.len());
    let is_made = in_pieces::<64>(line, upper, many)
        || in_pieces::<32>(line, upper, many)
        || in_pieces::<16>(line, upper, many)
        || in_pieces(line, upper, eight_upper);
    if !is_made {
        upper.extend_from_slice(line);
        upper.make_ascii_uppercase();
    }
}

/// All eight at once, which compilers make of sixteen bytes and not of these.
fn eight_upper(bytes: [u8; 8]) -> [u8; 8] {
    let of_each = |byte: u8| u64::from_ne_bytes([byte; 8]);
    let bytes = u64::from_ne_bytes(bytes);
    // No byte of these sums carries into the next. The highest bit of each says whether it is that letter or one behind it.
    let low = bytes & of_each(0x7f);
    let from_a = low + of_each(0x80 - b'a');
    let behind_z = low + of_each(0x7f - b'z');
    let is_lower = (from_a ^ behind_z) & !bytes & of_each(0x80);
    (bytes ^ (is_lower >> 2)).to_ne_bytes()
}

#[derive(Clone)]
pub(super) enum Answer {
    Handler(Handler),
    Exec(Arc<Exec>),
}

impl Answer {
    /// Answers all of a client's lines, and drops `present` when that is done. `local` is where it has connected to. In a box, so that
    /// a connection takes no more memory than what answers it needs.
    pub(super) fn to(
        &self,
        connection: Connection,
        local: &Arc<Address>,
        present: impl Send + 'static,
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
        match self {
            Self::Handler(handler) => {
                let answered = answer(connection, *handler);
                Box::pin(async move {
                    let _present = present;
                    answered.await
                })
            }
            Self::Exec(exec) => {
                let (exec, local) = (Arc::clone(exec), Arc::clone(local));
                Box::pin(async move {
                    let _present = present;
                    exec.answer(connection, &local).await
                })
            }
        }
    }
}

/// Answers each line with its ASCII upper case, as Python's `bytes.upper` does.
pub(crate) async fn upper(connection: Connection) -> io::Result<()> {
    answer(connection, Handler::Upper).await
}

/// A line that cannot be taken or answered gets an error line; the next one still comes.
async fn answer(connection: Connection, handler: Handler) -> io::Result<()> {
    match log::shows_lines() {
        true => Box::pin(answer_and_tell(connection, handler)).await,
        false => reply_into(move |line, reply| handler.reply(line, reply))(connection).await,
    }
}

/// What `reply_into` does, and tells the log.
async fn answer_and_tell(mut connection: Connection, handler: Handler) -> io::Result<()> {
    let peer = connection.peer();
    while let Some(batch) = connection.next_batch().await? {
        let mut reply = Vec::new();
        for line in &batch {
            reply.clear();
            log::received(peer, line.as_ref().copied());
            match line {
                Ok(line) => handler.reply(line, &mut reply),
                Err(bad) => reply.extend_from_slice(bad.reply().as_bytes()),
            }
            match connection.write_line(&reply).await {
                Err(Error::Encode(refused)) => {
                    connection.write_line(format!("error: reply refused: {refused}")).await?;
                }
                written => written?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Handler, make_upper};

    #[test]
    fn upper_case_of_every_byte_at_every_place() {
        let mut upper = Vec::new();
        for length in 0..140 {
            for first in 0..=255u8 {
                let line: Vec<u8> = (0..length).map(|i| first.wrapping_add(i)).collect();
                upper.clear();
                make_upper(&line, &mut upper);
                assert_eq!(upper, line.to_ascii_uppercase());
            }
        }
    }

    #[test]
    fn no_upper_case_holds_the_end_of_a_line() {
        for character in ('\0'..=char::MAX).filter(|character| !"\r\n".contains(*character)) {
            for handler in [Handler::Upper, Handler::UpperUnicode] {
                let mut reply = Vec::new();
                handler.reply(character.to_string().as_bytes(), &mut reply);
                assert!(!reply.iter().any(|byte| b"\r\n".contains(byte)), "{character:?}");
                assert!(reply.len() <= 3 * character.len_utf8(), "{character:?}");
            }
        }
    }
}
