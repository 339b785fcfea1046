//! Replies to clients, from a built-in handler or a command.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::BytesMut;
use clap::ValueEnum;
use lineframe::{Connection, Error, Reply, reply_into};
use tokio_util::either::Either;

use super::exec::Exec;
use super::log;
use crate::address::Address;
use crate::show;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Handler {
    /// ASCII upper case; other bytes are unchanged
    Upper,
    /// Unicode upper case; the reply may be three times as long, and a line must be UTF-8
    UpperUnicode,
    /// The unchanged line
    Echo,
}

impl Handler {
    fn reply(self, line: &[u8], reply: &mut Reply<'_>) {
        match self {
            Self::Upper => {
                reply.extend_from_slice(line);
                reply.make_ascii_uppercase();
            }
            Self::UpperUnicode => upper_unicode(line, reply),
            Self::Echo => reply.extend_from_slice(line),
        }
    }
}

fn upper_unicode(line: &[u8], reply: &mut Reply<'_>) {
    match std::str::from_utf8(line) {
        Ok(text) => reply.extend_from_slice(text.to_uppercase().as_bytes()),
        Err(error) => {
            let (length, at) = (show::bytes(line.len()), error.valid_up_to());
            let bad = format!("error: line of {length} with invalid UTF-8 at byte {at}");
            reply.extend_from_slice(bad.as_bytes());
        }
    }
}

#[derive(Clone)]
pub(super) enum Answer {
    Handler(Handler),
    Exec(Arc<Exec>),
}

impl Answer {
    /// Serves a connection to the address `local`, and drops `present` at its end.
    ///
    /// The future is boxed, so that each connection needs only the memory of its own kind of
    /// handler.
    pub(super) fn to<P: Send + 'static>(
        &self,
        connection: Connection,
        local: &Arc<Address>,
        present: P,
    ) -> Pin<Box<impl Future<Output = io::Result<()>> + Send + use<P>>> {
        let answered = match self {
            Self::Handler(handler) => Either::Left(answer(connection, *handler)),
            Self::Exec(exec) => {
                let (exec, local) = (Arc::clone(exec), Arc::clone(local));
                Either::Right(Box::pin(async move { exec.answer(connection, &local).await }))
            }
        };
        Box::pin(async move {
            let _present = present;
            answered.await
        })
    }
}

/// Replies to each line with its ASCII upper case, like Python's `bytes.upper`.
pub(crate) async fn upper(connection: Connection) -> io::Result<()> {
    answer(connection, Handler::Upper).await
}

/// Replies to each line, or with an error line to a bad one, and continues with the next line.
async fn answer(connection: Connection, handler: Handler) -> io::Result<()> {
    match log::shows_lines() {
        true => Box::pin(answer_and_log(connection, handler)).await,
        false => reply_into(move |line, reply| handler.reply(line, reply))(connection).await,
    }
}

/// Replies like `reply_into`, and logs each line.
async fn answer_and_log(mut connection: Connection, handler: Handler) -> io::Result<()> {
    let peer = connection.peer();
    while let Some(batch) = connection.next_batch().await? {
        let mut reply = BytesMut::new();
        for line in &batch {
            reply.clear();
            log::received(peer, line.as_ref().copied());
            match line {
                Ok(line) => handler.reply(line, &mut Reply::from(&mut reply)),
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
    use bytes::BytesMut;
    use lineframe::Reply;

    use super::Handler;

    #[test]
    fn upper_case_never_contains_line_ends() {
        for character in ('\0'..=char::MAX).filter(|character| !"\r\n".contains(*character)) {
            for handler in [Handler::Upper, Handler::UpperUnicode] {
                let mut reply = BytesMut::new();
                handler.reply(character.to_string().as_bytes(), &mut Reply::from(&mut reply));
                assert!(!reply.iter().any(|byte| b"\r\n".contains(byte)), "{character:?}");
                assert!(reply.len() <= 3 * character.len_utf8(), "{character:?}");
            }
        }
    }
}
