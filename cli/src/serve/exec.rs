//! A command for each connection: lines in on its stdin, replies from its stdout.

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

/// How long a child may take to end after its stdout was closed, and the rest of its process group to close stdout after the
/// child has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Descriptors of a connection with a child: its socket twice, stdin, stdout, stderr and its pidfd.
pub(super) const DESCRIPTORS: u64 = 6;

/// What runs for each connection.
pub(super) struct Exec {
    /// The program and its arguments.
    command: Vec<OsString>,
    /// How lines are written to its stdin.
    input: LineCodec,
    /// How replies are read from its stdout.
    output: LineCodec,
    idle_timeout: Option<Duration>,
}

impl Exec {
    /// Fails where there is no such program.
    pub(super) fn new(
        command: Vec<OsString>,
        codec: &LineCodec,
        longest_reply: usize,
        limits: &Limits,
    ) -> Result<Self, Failure> {
        if let Some(program) = command.first() {
            which::which(program).map_err(|error| cannot_run(program, &error))?;
        }
        // What has neither CR nor LF in it passes on as the lines that a program expects.
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
                connection.write_line("error: the command cannot be run").await?;
                return Err(error);
            }
        };
        let stderr = StderrLog::start(peer, running.take_stderr());
        let talked = self.talk(&mut connection, &mut running).await;
        if let Err(Error::NotLines) = talked {
            connection.write_line("error: HTTP and TLS are not spoken here").await?;
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

    /// Until the child has closed its stdout and all of that is sent. Lines and replies go at once, so that neither waits for
    /// the other where pipes are full.
    async fn talk(&self, connection: &mut Connection, running: &mut ProcessGroup) -> Result<(), Error> {
        let peer = connection.peer();
        let (stdin, stdout) = running.take_pipes()?;
        let stdout_limit = CancellationToken::new();
        let stdout = StdoutUntil::new(stdout, stdout_limit.clone());
        let reset_watch = ResetWatch::new(connection)?;
        let (mut lines, replies) = connection.split();
        // A client may be silent for as long as its child has something to say.
        lines.set_idle_timeout(None);
        let from_child = LineReader::with_codec(stdout, self.output.clone());
        // One only: who does not take what was wrong with its lines is not read.
        let (complain, complaints) = mpsc::channel(1);
        let activity = Activity::new();
        let to_child = LineWriter::with_codec(Marked::new(stdin, &activity), self.input.clone());
        let mut forwarding = pin!(forward(peer, lines, to_child, complain, &activity));
        let mut answering = pin!(reply(from_child, complaints, replies, &activity));
        let mut idle = pin!(activity.over(self.idle_timeout));
        let mut reset = pin!(reset_watch.reset());
        // A process that the child leaves behind may keep stdout open.
        let mut left_behind = pin!(async {
            running.exited().await;
            sleep(LAST_WORDS).await;
        });
        let mut forwarded = None;
        loop {
            tokio::select! {
                // Who has said something after all is not idle.
                biased;
                done = &mut forwarding, if forwarded.is_none() => forwarded = Some(match done {
                    // Its error lines, and what the child still has to say, go out.
                    Err(Error::TooManyBadLines) => Err(Error::TooManyBadLines),
                    done => Ok(done?),
                }),
                done = &mut answering => return done.and(forwarded.unwrap_or(Ok(()))),
                () = &mut left_behind, if !stdout_limit.is_cancelled() => stdout_limit.cancel(),
                () = &mut reset => return Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
                () = &mut idle => return Err(Error::Timeout(TimeoutKind::Idle)),
            }
        }
    }
}

/// Waits for the child, whose stdout is closed, and kills its process group.
async fn end(mut running: ProcessGroup, peer: Peer) {
    if timeout(LAST_WORDS, running.exited()).await.is_err() {
        warn!(%peer, "the command has closed its stdout and is killed");
        _ = running.kill_and_reap().await;
        return;
    }
    match running.kill_and_reap().await {
        Ok(status) if status.success() => info!(%peer, %status, "the command has ended"),
        Ok(status) => warn!(%peer, %status, "the command has ended"),
        Err(error) => warn!(%peer, %error, "the command is lost"),
    }
}

fn cannot_run(program: &OsStr, why: &which::Error) -> Failure {
    Failure::other(format_args!("cannot run {}", show::escaped(program.as_encoded_bytes())), why)
}

/// The client's lines, to the child. Ends with them, which closes its stdin.
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
                    // The child reads no more. What it still says goes out.
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

/// The child's replies, to the client, with what is wrong with its lines between them.
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
                            format!("error: reply of more than {limit}, the limit (max_encoded_length)")
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
