//! `--exec`: runs a command for each connection. It reads lines from stdin and writes replies to
//! stdout.

mod activity;
mod environment;
mod group;
mod reset;
mod stderr;

use std::ffi::{OsStr, OsString};
use std::io;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use lineframe::{
    Connection, Delimiter, Error, LineCodec, LineError, LineReader, LineWriter, Peer, TimeoutKind,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::activity::{Activity, Marked};
use self::environment::{VARIABLES, environment};
use self::group::{ProcessGroup, StdoutUntil};
use self::reset::ResetWatch;
use self::stderr::StderrLog;
use super::limits::Limits;
use super::log;
use crate::address::Address;
use crate::failure::Failure;
use crate::show;

pub(super) use self::group::{kill_all, reap};

/// Time limit for a child to exit after it closes stdout, and for the rest of its process group to
/// close stdout after the child exits.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Descriptors per connection with a child: the socket twice, stdin, stdout, stderr and the pidfd.
pub(super) const DESCRIPTORS: u64 = 6;

/// The command to run for each connection.
pub(super) struct Exec {
    /// Program and arguments.
    command: Vec<OsString>,
    /// Encodes lines for the child's stdin.
    input: LineCodec,
    /// Decodes replies from the child's stdout.
    output: LineCodec,
    idle_timeout: Option<Duration>,
}

impl Exec {
    /// Fails if the program does not exist.
    pub(super) fn new(
        command: Vec<OsString>,
        codec: &LineCodec,
        longest_reply: usize,
        limits: &Limits,
    ) -> Result<Self, Failure> {
        if let Some(program) = command.first() {
            which::which(program).map_err(|error| cannot_run(program, error))?;
        }
        // A line of a CRLF protocol contains no CR or LF, so the child can use plain newlines.
        let delimiter = match codec.delimiter() {
            Delimiter::CrLf => Delimiter::Newline,
            other => other.clone(),
        };
        let lines = LineCodec::builder().delimiter(delimiter);
        Ok(Self {
            command,
            input: lines.clone().max_length(codec.max_length()).build(),
            output: lines.max_length(longest_reply).build(),
            idle_timeout: limits.idle_timeout.0,
        })
    }

    pub(super) async fn answer(&self, mut connection: Connection, local: &Address) -> io::Result<()> {
        let peer = connection.peer();
        let mut running = match self.start(&connection, local).await {
            Ok(running) => running,
            Err(error) => {
                warn!(%peer, %error, "cannot run the command");
                connection.write_line("error: cannot run the command").await?;
                return Err(error);
            }
        };
        let stderr = StderrLog::start(peer, running.take_stderr());
        let talked = self.talk(&mut connection, &mut running).await;
        if let Err(Error::NotLines) = talked {
            connection.write_line("error: this server does not speak HTTP or TLS").await?;
        }
        match talked {
            Ok(()) => end(running, peer).await,
            Err(_) => _ = running.kill_and_reap().await,
        }
        stderr.end().await;
        Ok(talked?)
    }

    async fn start(&self, connection: &Connection, local: &Address) -> io::Result<ProcessGroup> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        command.envs(environment(connection, local));
        ProcessGroup::spawn(command).await
    }

    /// Transfers lines and replies until the child closes stdout and all replies are sent. The two
    /// directions are independent, so that a full pipe does not cause a deadlock.
    async fn talk(&self, connection: &mut Connection, running: &mut ProcessGroup) -> Result<(), Error> {
        let peer = connection.peer();
        let (stdin, stdout) = running.take_pipes()?;
        let stdout_limit = CancellationToken::new();
        let stdout = StdoutUntil::new(stdout, stdout_limit.clone());
        let reset_watch = ResetWatch::new(connection)?;
        let (mut lines, replies) = connection.split();
        // The client may be idle while its child is active: `activity` covers both.
        lines.set_idle_timeout(None);
        let from_child = LineReader::with_codec(stdout, self.output.clone());
        // Capacity 1: a client that does not read its error lines is not read either.
        let (complain, complaints) = mpsc::channel(1);
        let activity = Activity::new();
        let to_child = LineWriter::with_codec(Marked::new(stdin, &activity), self.input.clone());
        let mut forwarding = pin!(forward(peer, lines, to_child, complain, &activity));
        let mut answering = pin!(reply(from_child, complaints, replies, &activity));
        let mut idle = pin!(activity.over(self.idle_timeout));
        let mut reset = pin!(reset_watch.reset());
        // A descendant of the child may keep stdout open after the child exits.
        let mut stdout_overdue = pin!(async {
            running.exited().await;
            sleep(EXIT_TIMEOUT).await;
        });
        let mut forwarded = None;
        loop {
            tokio::select! {
                // Check for data before the idle timeout.
                biased;
                done = &mut forwarding, if forwarded.is_none() => forwarded = Some(match done {
                    // The remaining error lines and replies are still sent.
                    Err(Error::TooManyBadLines) => Err(Error::TooManyBadLines),
                    done => Ok(done?),
                }),
                done = &mut answering => return done.and(forwarded.unwrap_or(Ok(()))),
                () = &mut stdout_overdue, if !stdout_limit.is_cancelled() => stdout_limit.cancel(),
                () = &mut reset => return Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
                () = &mut idle => return Err(Error::Timeout(TimeoutKind::Idle)),
            }
        }
    }
}

/// Waits for the child, whose stdout is closed, and kills its process group.
async fn end(mut running: ProcessGroup, peer: Peer) {
    if timeout(EXIT_TIMEOUT, running.exited()).await.is_err() {
        warn!(%peer, "killed the command, which did not exit after closing stdout");
        _ = running.kill_and_reap().await;
        return;
    }
    match running.kill_and_reap().await {
        Ok(status) if status.success() => info!(%peer, %status, "the command exited"),
        Ok(status) => warn!(%peer, %status, "the command exited"),
        Err(error) => warn!(%peer, %error, "cannot wait for the command"),
    }
}

fn cannot_run(program: &OsStr, error: which::Error) -> Failure {
    let why = match error {
        which::Error::CannotFindBinaryPath => {
            "no executable file of this name; check the path or PATH".into()
        }
        error => error.to_string(),
    };
    Failure::other(format_args!("cannot run {}", show::escaped(program.as_encoded_bytes())), why)
}

/// Sends the client's lines to the child. Returns at their end, which closes the child's stdin.
async fn forward(
    peer: Peer,
    mut lines: LineReader<impl AsyncRead + Unpin>,
    mut to_child: LineWriter<impl AsyncWrite + Unpin>,
    complain: mpsc::Sender<String>,
    activity: &Activity,
) -> Result<(), Error> {
    loop {
        let Some(batch) = lines.next_batch().await? else { return Ok(()) };
        for line in &batch {
            activity.mark();
            log::received(peer, line.as_ref().copied());
            let complaint = match line {
                Err(bad) => bad.reply(),
                Ok(line) => match to_child.feed_line(line).await {
                    Ok(()) => continue,
                    Err(Error::Encode(refused)) => format!("error: line refused: {refused}"),
                    // The child closed stdin. Its replies are still sent.
                    Err(_) => return Ok(()),
                },
            };
            if complain.send(complaint).await.is_err() {
                return Ok(());
            }
        }
        if to_child.flush().await.is_err() {
            return Ok(());
        }
    }
}

/// Sends the child's replies to the client, and error lines for the client's bad lines.
async fn reply(
    mut from_child: LineReader<StdoutUntil>,
    mut complaints: mpsc::Receiver<String>,
    mut replies: LineWriter<impl AsyncWrite + Unpin>,
    activity: &Activity,
) -> Result<(), Error> {
    loop {
        let sending;
        tokio::select! {
            Some(complaint) = complaints.recv() => {
                sending = activity.sending();
                replies.feed_line(complaint).await?;
            }
            batch = from_child.next_batch() => {
                let Some(batch) = batch? else { break };
                sending = activity.sending();
                for line in &batch {
                    let refused = match line {
                        Ok(line) => match replies.feed_line(line).await {
                            Err(Error::Encode(refused)) => format!("error: reply refused: {refused}"),
                            fed => {
                                fed?;
                                continue;
                            }
                        },
                        Err(LineError::TooLong { max_length, .. }) => {
                            let limit = show::bytes(max_length);
                            format!("error: reply longer than the limit of {limit} (--max-encoded-length)")
                        }
                        Err(bad) => format!("error: reply refused: {bad}"),
                    };
                    replies.feed_line(refused).await?;
                }
            }
        }
        replies.flush().await?;
        drop(sending);
    }
    let _sending = activity.sending();
    while let Ok(complaint) = complaints.try_recv() {
        replies.feed_line(complaint).await?;
    }
    replies.shutdown().await
}
