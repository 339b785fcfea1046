//! A mail server: SMTP with dot-stuffing, BDAT and STARTTLS. It stores each mail in its own file.
//!
//! ```sh
//! cargo run --example smtp -- 127.0.0.1:2525 some/directory [CERTIFICATE.pem KEY.pem]
//! curl smtp://127.0.0.1:2525 --mail-from a@example.org --mail-rcpt b@example.org \
//!     --crlf -T README.md
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lineframe::{AnyIo, Bind, Connection, Delimiter, Error, LineCodec, LineError, Server};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::{TlsAcceptor, rustls, server::TlsStream};

const MAX_MAIL: usize = 10 << 20;
const MAX_RECIPIENTS: usize = 100;

#[derive(Clone)]
struct Site {
    directory: Arc<PathBuf>,
    /// The number of the next mail. It starts with the time at which the server started, so that
    /// file names are never reused.
    next: Arc<AtomicU64>,
    tls: Option<TlsAcceptor>,
}

#[derive(Default)]
struct Mail {
    sender: Option<String>,
    recipients: Vec<String>,
    /// The text is not made of lines (`BODY=BINARYMIME`), so DATA is refused.
    is_binary: bool,
    text: Vec<u8>,
}

struct Session {
    conn: Connection,
    site: Site,
    mail: Mail,
}

impl Session {
    // region: run
    async fn run(mut self) -> io::Result<()> {
        self.conn.write_line("220 mail.example ESMTP").await?;
        while let Some(line) = self.conn.next_text().await? {
            let line = match line {
                Ok(line) => line,
                Err(LineError::TooLong { .. }) => {
                    self.conn.write_line("500 5.5.2 Line too long").await?;
                    continue;
                }
                // A lone CR or LF, or not UTF-8. The client may see different line ends than this
                // server.
                Err(_) => return Ok(self.conn.write_line("554 5.5.2 Lines end with CRLF").await?),
            };
            let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
            let reply = match verb.to_ascii_uppercase().as_str() {
                "EHLO" => self.hello().await?,
                "HELO" => "250 mail.example",
                "MAIL" => self.sender(argument),
                "RCPT" => self.recipient(argument),
                "DATA" => self.data().await?,
                "BDAT" => match self.chunk(argument).await? {
                    Some(reply) => reply,
                    // It is unknown where the next command begins.
                    None => return Ok(self.conn.write_line("501 5.5.4 BDAT takes a length").await?),
                },
                "STARTTLS" => match self.start_tls().await? {
                    Some(reply) => reply,
                    None => continue, // TLS is established, and the client sends next
                },
                "RSET" => {
                    self.mail = Mail::default();
                    "250 2.0.0 Reset"
                }
                "NOOP" => "250 2.0.0 Done",
                "QUIT" => return Ok(self.conn.write_line("221 2.0.0 Bye").await?),
                _ => "502 5.5.1 Unknown command",
            };
            self.conn.write_line(reply).await?;
        }
        if self.conn.is_draining() {
            self.conn.write_line("421 4.3.2 Shutting down").await?;
        }
        Ok(())
    }
    // endregion

    async fn hello(&mut self) -> Result<&'static str, Error> {
        self.conn.write_line("250-mail.example").await?;
        self.conn.write_line(format!("250-SIZE {MAX_MAIL}")).await?;
        if self.site.tls.is_some() && !self.is_encrypted() {
            self.conn.write_line("250-STARTTLS").await?;
        }
        for extension in ["250-PIPELINING", "250-8BITMIME", "250-BINARYMIME"] {
            self.conn.write_line(extension).await?;
        }
        Ok("250 CHUNKING")
    }

    fn sender(&mut self, argument: &str) -> &'static str {
        match path(argument, "FROM:") {
            Some(sender) => {
                let is_binary = argument.to_ascii_uppercase().contains(" BODY=BINARYMIME");
                self.mail = Mail { sender: Some(sender), is_binary, ..Mail::default() };
                "250 2.1.0 Sender taken"
            }
            None => "501 5.5.4 MAIL FROM:<address>",
        }
    }

    fn recipient(&mut self, argument: &str) -> &'static str {
        match path(argument, "TO:") {
            _ if self.mail.sender.is_none() => "503 5.5.1 MAIL first",
            _ if self.mail.recipients.len() == MAX_RECIPIENTS => "452 4.5.3 Too many recipients",
            Some(recipient) => {
                self.mail.recipients.push(recipient);
                "250 2.1.5 Recipient taken"
            }
            None => "501 5.5.4 RCPT TO:<address>",
        }
    }

    // region: data
    async fn data(&mut self) -> Result<&'static str, Error> {
        if self.mail.recipients.is_empty() || !self.mail.text.is_empty() || self.mail.is_binary {
            return Ok("503 5.5.1 MAIL and RCPT first, or BDAT");
        }
        self.conn.write_line("354 Go ahead, end with a dot").await?;
        let mut refused = None;
        while let Some(line) = self.conn.next_line().await? {
            match line {
                Ok(line) if line == "." => {
                    return match refused {
                        None => self.store().await,
                        Some(why) => {
                            self.mail = Mail::default();
                            Ok(why)
                        }
                    };
                }
                Ok(line) if self.mail.text.len() + line.len() <= MAX_MAIL => {
                    // Dot-stuffing: the client adds a dot to each line that begins with one.
                    self.mail.text.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
                    self.mail.text.extend_from_slice(b"\r\n");
                }
                // Refuse the mail and keep the connection: read on to the final dot.
                Ok(_) => refused = Some("552 5.3.4 Too large"),
                Err(LineError::TooLong { .. }) => refused = Some("554 5.6.0 Line too long"),
                Err(_) => refused = Some("554 5.6.0 A lone CR or LF"),
            }
        }
        Err(Error::Eof)
    }
    // endregion

    // region: chunk
    /// Reads a chunk and returns the reply. Returns `None` if the argument has no valid length.
    async fn chunk(&mut self, argument: &str) -> Result<Option<&'static str>, Error> {
        let (length, last) = argument.split_once(' ').unwrap_or((argument, ""));
        let is_last = last.eq_ignore_ascii_case("LAST");
        let (Some(length), true) = (number(length), is_last || last.is_empty()) else { return Ok(None) };
        let refused = if self.mail.recipients.is_empty() {
            Some("503 5.5.1 MAIL and RCPT first")
        } else if length > MAX_MAIL.saturating_sub(self.mail.text.len()) as u64 {
            Some("552 5.3.4 Too large")
        } else {
            None
        };
        if let Some(why) = refused {
            self.mail = Mail::default();
            // The client sends the bytes anyway, and they are not commands.
            self.conn.skip_bytes(length).await?;
            return Ok(Some(why));
        }
        // These are bytes and not lines: dots and line ends have no meaning.
        tokio::io::copy(&mut self.conn.body(length), &mut self.mail.text).await?;
        Ok(Some(if is_last { self.store().await? } else { "250 2.0.0 Taken" }))
    }
    // endregion

    // region: tls
    /// Starts TLS. Returns `None` on success, and otherwise the reply.
    async fn start_tls(&mut self) -> Result<Option<&'static str>, Error> {
        let Some(tls) = self.site.tls.clone().filter(|_| !self.is_encrypted()) else {
            return Ok(Some("503 5.5.1 Not now"));
        };
        let handshake = self.conn.upgrade(async |mut io: AnyIo| {
            io.write_all(b"220 2.0.0 Go ahead\r\n").await?;
            tls.accept(io).await
        });
        match timeout(Duration::from_secs(10), handshake).await.map_err(io::Error::from)? {
            // RFC 3207: discard everything that the client sent before TLS.
            Ok(()) => self.mail = Mail::default(),
            // Plaintext commands followed STARTTLS (CVE-2011-0411). The session runs them without
            // TLS.
            Err(Error::LeftOver { .. }) => return Ok(Some("501 5.5.4 Nothing may follow STARTTLS")),
            Err(gone) => return Err(gone),
        }
        Ok(None)
    }

    fn is_encrypted(&self) -> bool {
        self.conn.io().downcast_ref::<TlsStream<AnyIo>>().is_some()
    }
    // endregion

    /// Stores the mail. The client deletes its copy after a 250, so the reply waits for the write.
    async fn store(&mut self) -> Result<&'static str, Error> {
        let Mail { sender, recipients, text, .. } = std::mem::take(&mut self.mail);
        let name = format!("{}.eml", self.site.next.fetch_add(1, Ordering::Relaxed));
        let head = format!(
            "Return-Path: <{}>\r\nDelivered-To: {}\r\n",
            sender.unwrap_or_default(),
            recipients.join(", ")
        );
        match tokio::fs::write(self.site.directory.join(&name), [head.into_bytes(), text].concat()).await {
            Ok(()) => Ok("250 2.0.0 Stored"),
            Err(error) => {
                eprintln!("{name}: {error}");
                Ok("451 4.3.0 Not stored, try again")
            }
        }
    }
}

/// Returns the address in an argument such as `FROM:<a@example.org> SIZE=9`.
fn path(argument: &str, keyword: &str) -> Option<String> {
    let rest =
        argument.split_at_checked(keyword.len()).filter(|(head, _)| head.eq_ignore_ascii_case(keyword))?.1;
    Some(rest.trim_start().strip_prefix('<')?.split_once('>')?.0.to_owned())
}

/// Accepts digits only: `parse` also accepts `+5`, which other servers refuse.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (address, directory, tls) = match &words[..] {
        [address, directory] => (address, directory, None),
        [address, directory, certificate, key] => {
            let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
            let key = PrivateKeyDer::from_pem_file(key)?;
            let config =
                rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
            (address, directory, Some(TlsAcceptor::from(Arc::new(config))))
        }
        _ => return Err("usage: smtp ADDRESS DIRECTORY [CERTIFICATE.pem KEY.pem]".into()),
    };
    let listener = Bind::new().tcp(address).await?;
    println!("listening {}", listener.local_addr()?);
    // region: strict
    // RFC 5321 allows 998 bytes of content, and dot-stuffing adds one. Only CRLF ends a line.
    let codec = LineCodec::builder().delimiter(Delimiter::CrLf).max_length(999).build();
    // endregion
    let server = Server::builder().codec(codec).build();
    let began = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let site = Site { directory: Arc::new(directory.into()), next: Arc::new(began.into()), tls };
    let session = async move |conn| Session { conn, site, mail: Mail::default() }.run().await;
    println!("{:?}", server.serve_with_shutdown(listener, session, tokio::signal::ctrl_c()).await);
    Ok(())
}
