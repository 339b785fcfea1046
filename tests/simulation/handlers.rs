//! Handlers of every kind. All send the same replies but use different methods.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lineframe::{Connection, LineError, Peer};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::expected::reply_to;
use super::plan::{Config, Handler, Ms};
use crate::model::{self, Item};

/// The items that the handler of a connection has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub began_at: Option<Ms>,
    pub items: Vec<Item>,
}

#[derive(Clone)]
pub struct Context {
    pub config: Arc<Config>,
    pub start: Instant,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl Context {
    pub fn now(&self) -> Ms {
        self.start.elapsed().as_millis() as Ms
    }

    /// Records the item and returns the reply.
    fn answer<L: AsRef<[u8]>>(&self, peer: usize, line: Result<L, LineError>) -> Vec<u8> {
        let reply = match &line {
            Ok(line) => reply_to(line.as_ref(), self.config.repeats),
            Err(bad) => bad.reply().into_bytes(),
        };
        let item = model::item(&self.config.model, line);
        self.seen.lock().unwrap()[peer].items.push(item);
        reply
    }
}

type Handling = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

pub fn handler(context: Context) -> impl FnOnce(Connection) -> Handling + Clone + Send + 'static {
    move |conn| Box::pin(handle(conn, context))
}

async fn handle(mut conn: Connection, context: Context) -> io::Result<()> {
    let Peer::Tcp(address) = conn.peer() else { panic!("{:?}", conn.peer()) };
    let peer = usize::from(address.port());
    let began_at = context.now();
    context.seen.lock().unwrap()[peer].began_at = Some(began_at);
    let repeats = context.config.repeats;
    match context.config.handler {
        Handler::Lines => answer_lines(&mut conn, &context, peer, u64::MAX).await,
        Handler::Sends => {
            while let Some(line) = conn.next_line().await? {
                conn.send_line(context.answer(peer, line)).await?;
            }
            Ok(())
        }
        Handler::Batches(most) => {
            while let Some(mut batch) = conn.next_batch().await? {
                let taken: Vec<_> = batch.by_ref().take(most).collect();
                conn.put_back(batch).unwrap();
                for line in taken {
                    conn.write_line(context.answer(peer, line)).await?;
                }
            }
            Ok(())
        }
        Handler::Reply => lineframe::reply(move |line| reply_to(line, repeats))(conn).await,
        Handler::ReplyInto => {
            let answer = lineframe::reply_into(move |line, reply| reply.extend(reply_to(line, repeats)));
            answer(conn).await
        }
        Handler::Split(most) => split_again_and_again(conn, &context, peer, most).await,
        Handler::Tasks => in_two_tasks(conn, &context, peer).await,
        Handler::Spawned => {
            tokio::spawn(async move { answer_lines(&mut conn, &context, peer, u64::MAX).await });
            Ok(())
        }
        Handler::Impatient(after) => loop {
            let Ok(line) = timeout(Duration::from_millis(after), conn.next_line()).await else { continue };
            let Some(line) = line? else { return Ok(()) };
            conn.write_line(context.answer(peer, line)).await?;
        },
        Handler::Sleeper(delay) => {
            while let Some(line) = conn.next_line().await? {
                let reply = context.answer(peer, line);
                sleep(Duration::from_millis(delay)).await;
                conn.write_line(reply).await?;
            }
            Ok(())
        }
        Handler::Early(most) => answer_lines(&mut conn, &context, peer, most).await,
        Handler::Failing(most) => {
            answer_lines(&mut conn, &context, peer, most).await?;
            if context.seen.lock().unwrap()[peer].items.len() as u64 == most {
                return Err(io::Error::other("this handler has had enough"));
            }
            Ok(())
        }
        Handler::Panicking(most) => {
            answer_lines(&mut conn, &context, peer, most).await?;
            if context.seen.lock().unwrap()[peer].items.len() as u64 == most {
                // `resume_unwind` does not call the panic hook, which would print the panic.
                std::panic::resume_unwind(Box::new("this handler panics"));
            }
            Ok(())
        }
    }
}

async fn answer_lines(conn: &mut Connection, context: &Context, peer: usize, most: u64) -> io::Result<()> {
    for _ in 0..most {
        let Some(line) = conn.next_line().await? else { return Ok(()) };
        conn.write_line(context.answer(peer, line)).await?;
    }
    Ok(())
}

async fn split_again_and_again(
    mut conn: Connection,
    context: &Context,
    peer: usize,
    most: u64,
) -> io::Result<()> {
    loop {
        let (mut reader, mut writer) = conn.split();
        for _ in 0..most {
            let Some(line) = reader.next_line().await? else { return Ok(()) };
            writer.send_line(context.answer(peer, line)).await?;
        }
    }
}

async fn in_two_tasks(conn: Connection, context: &Context, peer: usize) -> io::Result<()> {
    let (mut reader, mut writer) = conn.into_split();
    let (replies, mut to_write) = mpsc::channel::<(Vec<u8>, oneshot::Sender<()>)>(1);
    tokio::spawn(async move {
        while let Some((reply, written)) = to_write.recv().await {
            if writer.send_line(reply).await.is_err() {
                return;
            }
            _ = written.send(());
        }
    });
    while let Some(line) = reader.next_line().await? {
        let (written, is_written) = oneshot::channel();
        _ = replies.send((context.answer(peer, line), written)).await;
        is_written.await.map_err(io::Error::other)?;
    }
    Ok(())
}
