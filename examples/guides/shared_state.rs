//! A notice board: clients log in, post lines, and receive what others post.
//!
//! ```sh
//! cargo run --example shared_state -- 127.0.0.1:8083
//! lineframe connect 127.0.0.1:8083    # login ann, post hello, users, quit
//! ```

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lineframe::{Bind, Connection, LineCodec, Server};
use tokio::sync::broadcast::{self, error::RecvError};

// region: state
/// State shared by all connections.
struct Board {
    /// Posts for all clients. The channel keeps the newest `MAX_BEHIND`.
    posts: broadcast::Sender<Arc<str>>,
    users: Mutex<HashSet<Arc<str>>>,
}

/// State of one connection. Dropping it logs the user out.
struct Login {
    name: Arc<str>,
    board: Arc<Board>,
}

/// How many posts a slow client may be behind before it misses the oldest.
const MAX_BEHIND: usize = 64;

impl Board {
    fn login(self: &Arc<Self>, name: &str) -> Option<Login> {
        let name: Arc<str> = name.into();
        let is_new = self.users().insert(Arc::clone(&name));
        is_new.then(|| Login { name, board: Arc::clone(self) })
    }

    fn users(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.board.users().remove(&self.name);
    }
}
// endregion

// region: session
async fn session(mut conn: Connection, board: Arc<Board>) -> io::Result<()> {
    let mut login: Option<Login> = None;
    let mut posts = board.posts.subscribe();
    loop {
        tokio::select! {
            line = conn.next_line() => {
                let line = match line? {
                    None => return Ok(()), // the client has finished, or the server is draining
                    Some(Err(bad)) => {
                        conn.write_line(bad.reply()).await?;
                        continue;
                    }
                    Some(Ok(line)) => String::from_utf8_lossy(&line).into_owned(),
                };
                match (line.split_once(' ').unwrap_or((&line, "")), &login) {
                    (("login", name), None) => {
                        login = board.login(name);
                        let reply = if login.is_some() { "ok" } else { "error: name in use" };
                        posts = board.posts.subscribe();
                        conn.set_idle_timeout(Duration::from_secs(3600));
                        conn.write_line(reply).await?;
                    }
                    (("post", text), Some(login)) => {
                        // Fails only without a receiver, and this session has one.
                        _ = board.posts.send(format!("{}: {text}", login.name).into());
                    }
                    (("users", _), Some(_)) => {
                        let count = board.users().len(); // unlocked before the `await`
                        conn.write_line(format!("users: {count}")).await?;
                    }
                    (("quit", _), _) => return Ok(()),
                    _ => conn.write_line("error: unknown command, or not logged in").await?,
                }
            }
            post = posts.recv(), if login.is_some() => match post {
                Ok(post) => conn.write_line(&*post).await?,
                Err(RecvError::Lagged(count)) => conn.write_line(format!("missed {count} posts")).await?,
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}
// endregion

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8083".into());
    let listener = Bind::new().tcp(&address).await?;
    println!("listening {}", listener.local_addr()?);
    // region: main
    let board = Arc::new(Board { posts: broadcast::Sender::new(MAX_BEHIND), users: Mutex::default() });
    // A post is longer than its line: it carries the name.
    let codec = LineCodec::builder().max_length(32 << 10).max_encoded_length(64 << 10).build();
    let server = Server::builder().codec(codec).build();
    let handler = async move |conn| session(conn, board).await;
    server.serve_with_shutdown(listener, handler, tokio::signal::ctrl_c()).await;
    // endregion
    Ok(())
}
