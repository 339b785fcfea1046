use std::boxed::Box;
use std::format;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::vec::Vec;

use crate::connection::{Connection, Error};

type Handling = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// A handler that answers each line with what `f` makes of it, and a bad line with what is wrong with it.
///
/// `f` is cloned for each connection: what it captures is the connection's own state. A reply that cannot be framed, because
/// it is too long or would be read as two lines, is replaced by an error line.
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
    move |connection| Box::pin(answer(connection, f.clone()))
}

async fn answer(mut connection: Connection, mut f: impl FnMut(&[u8], &mut Vec<u8>)) -> io::Result<()> {
    while let Some(batch) = connection.next_batch().await? {
        // Kept for a batch only: an idle connection holds no buffer.
        let mut reply = Vec::new();
        for line in &batch {
            reply.clear();
            match line {
                Ok(line) => f(line, &mut reply),
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
