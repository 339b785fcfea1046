//! A chat server for IRC clients. It pushes each message to all other members of the channel, and a
//! slow client delays no other.
//!
//! ```sh
//! cargo run --example chat -- 127.0.0.1:6667
//! ii -s 127.0.0.1 -n ann -i rooms &    # or any other IRC client
//! echo '/j #rust' > rooms/127.0.0.1/in
//! ```

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use lineframe::{Bind, Connection, LineCodec, LineError, Server};
use tokio::sync::broadcast::{self, error::RecvError};

const NAME: &str = "chat.example";
/// How many messages may wait for a client. A client that falls further behind misses the oldest
/// ones, and gets a notice with their number.
const MAX_BEHIND: usize = 1024;
const MAX_CHANNELS: usize = 20;

/// A message, as every client in the channel receives it.
#[derive(Clone)]
struct Said {
    from: Arc<str>,
    to: Arc<str>,
    line: Arc<str>,
}

#[derive(Clone)]
struct Network {
    said: broadcast::Sender<Said>,
    nicks: Arc<Mutex<HashSet<Arc<str>>>>,
}

struct Client {
    conn: Connection,
    network: Network,
    nick: Option<Arc<str>>,
    channels: HashSet<String>,
}

// region: session
async fn session(conn: Connection, network: Network) -> io::Result<()> {
    let mut inbox = network.said.subscribe();
    let mut client = Client { conn, network, nick: None, channels: HashSet::new() };
    loop {
        // Both futures are cancel safe: dropping the slower one loses nothing.
        tokio::select! {
            line = client.conn.next_line() => match line? {
                Some(line) => {
                    if !client.obey(line.as_deref()).await? {
                        break;
                    }
                }
                None => break, // the client has finished, or the server is draining
            },
            said = inbox.recv() => match said {
                Ok(said) => client.hear(said).await?,
                Err(RecvError::Lagged(missed)) => {
                    client.tell(format!("NOTICE * :{missed} messages were too many for this connection")).await?;
                }
                Err(RecvError::Closed) => break,
            },
        }
    }
    let why = if client.conn.is_draining() { "the server is going down" } else { "bye" };
    Ok(client.conn.write_line(format!("ERROR :{why}")).await?)
}
// endregion

impl Client {
    // region: obey
    /// Runs one command. Returns false if the session ends with it.
    async fn obey(&mut self, line: Result<&[u8], &LineError>) -> io::Result<bool> {
        // A lone CR ends a line for some clients, so a forwarded message must not contain one.
        let text = match line.map(std::str::from_utf8) {
            Ok(Ok(text)) if !text.contains(['\r', '\0']) => text,
            Ok(_) => return self.tell("NOTICE * :not UTF-8, or with a CR or NUL in it").await,
            Err(_) => return self.tell("417 * :Input line was too long").await,
        };
        let (head, last) = text.split_once(" :").map_or((text, None), |(head, last)| (head, Some(last)));
        let words: Vec<&str> = head.split_ascii_whitespace().chain(last).collect();
        let Some((command, words)) = words.split_first() else { return Ok(true) };
        match (command.to_ascii_uppercase().as_str(), words, self.nick.clone()) {
            ("NICK", [nick, ..], None) => self.register(nick).await,
            ("PING", [token, ..], _) => self.tell(format!("PONG {NAME} :{token}")).await,
            ("JOIN", [channel, ..], Some(nick)) => self.join(channel, &nick).await,
            ("PART", [channel, ..], Some(nick)) => {
                self.channels.remove(*channel);
                self.tell_as(&nick, &format!("PART {channel}")).await
            }
            ("PRIVMSG", [channel, text, ..], Some(nick)) if self.channels.contains(*channel) => {
                let line = format!(":{nick}!{nick}@{NAME} PRIVMSG {channel} :{text}").into();
                // `send` fails only if there is no receiver.
                _ = self.network.said.send(Said { from: nick, to: (*channel).into(), line });
                Ok(true)
            }
            ("PRIVMSG", ..) => self.tell("404 * * :Cannot send to channel").await,
            ("QUIT", ..) => Ok(false),
            ("USER" | "CAP" | "MODE" | "WHO" | "PONG", ..) => Ok(true),
            _ => self.tell("421 * * :Unknown command, or not now").await,
        }
    }
    // endregion

    async fn register(&mut self, nick: &str) -> io::Result<bool> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_[]\\`^{}|".contains(c);
        if nick.is_empty() || nick.len() > 30 || !nick.chars().all(is_name) {
            return self.tell("432 * * :Erroneous nickname").await;
        }
        let nick: Arc<str> = nick.into();
        if !self.network.nicks().insert(nick.clone()) {
            return self.tell(format!("433 * {nick} :Nickname is already in use")).await;
        }
        self.nick = Some(nick.clone());
        self.tell(format!("001 {nick} :Welcome")).await?;
        self.tell(format!("422 {nick} :No message of the day")).await
    }

    async fn join(&mut self, channel: &str, nick: &str) -> io::Result<bool> {
        if !channel.starts_with('#') || channel.len() > 50 || self.channels.len() == MAX_CHANNELS {
            return self.tell(format!("403 {nick} * :No such channel, or too many")).await;
        }
        self.channels.insert(channel.into());
        self.tell_as(nick, &format!("JOIN {channel}")).await?;
        self.tell(format!("366 {nick} {channel} :End of names")).await
    }

    // region: hear
    async fn hear(&mut self, said: Said) -> io::Result<()> {
        if self.channels.contains(&*said.to) && self.nick.as_ref() != Some(&said.from) {
            // Waits while more than 64 KiB are unsent. Meanwhile up to `MAX_BEHIND` messages wait
            // in the inbox.
            self.conn.write_line(&*said.line).await?;
        }
        Ok(())
    }
    // endregion

    async fn tell(&mut self, reply: impl AsRef<str>) -> io::Result<bool> {
        self.conn.write_line(format!(":{NAME} {}", reply.as_ref())).await?;
        Ok(true)
    }

    async fn tell_as(&mut self, nick: &str, what: &str) -> io::Result<bool> {
        self.conn.write_line(format!(":{nick}!{nick}@{NAME} {what}")).await?;
        Ok(true)
    }
}

impl Network {
    fn nicks(&self) -> std::sync::MutexGuard<'_, HashSet<Arc<str>>> {
        self.nicks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(nick) = &self.nick {
            self.network.nicks().remove(nick);
        }
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:6667".into());
    let listener = Bind::new().tcp(&address).await?;
    println!("listening {}", listener.local_addr()?);
    // A forwarded message starts with the sender's name, so it may exceed the 510 bytes of an
    // incoming line.
    let codec = LineCodec::builder().max_length(510).max_encoded_length(1024).write_crlf(true).build();
    let server = Server::builder().codec(codec).build();
    let network = Network { said: broadcast::Sender::new(MAX_BEHIND), nicks: Arc::default() };
    let session = async move |conn| session(conn, network).await;
    println!("{:?}", server.serve_with_shutdown(listener, session, tokio::signal::ctrl_c()).await);
    Ok(())
}
