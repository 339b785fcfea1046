//! A command for each connection: lines in on its stdin, replies from its stdout.

use std::ffi::{OsStr, OsString};
use std::io;
use std::pin::pin;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use lineframe::{
    Connection, Delimiter, Error, LineCodec, LineError, LineReader, LineWriter, Peer, TimeoutKind,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::limits::Limits;
use super::log;
use crate::address::Address;
use crate::failure::Failure;
use crate::show;

/// How long a child that has closed its stdout may take to end by itself.
const LAST_WORDS: Duration = Duration::from_secs(2);

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
        let mut running = match self.start(&connection, local) {
            Ok(running) => running,
            Err(error) => {
                warn!(%peer, %error, "cannot run the command");
                connection.write_line("error: the command cannot be run").await?;
                return Err(error);
            }
        };
        let talked = self.talk(&mut connection, &mut running).await;
        if let Err(Error::NotLines) = talked {
            connection.write_line("error: HTTP and TLS are not spoken here").await?;
        }
        match talked {
            Ok(()) => running.end(peer).await,
            Err(_) => running.cut().await,
        }
        Ok(talked?)
    }

    fn start(&self, connection: &Connection, local: &Address) -> io::Result<Running> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C is for the server: who is drained still needs its child. And a child takes its own children with it.
        #[cfg(unix)]
        command.process_group(0);
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        command.envs(environment(connection, local));
        let mut child = command.spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok(Running { child, pipes: Some((stdin, stdout)) })
    }

    /// Until the child has closed its stdout and all of that is sent. Lines and replies go at once, so that neither waits for
    /// the other where pipes are full.
    async fn talk(&self, connection: &mut Connection, running: &mut Running) -> Result<(), Error> {
        let peer = connection.peer();
        let Some((stdin, stdout)) = running.pipes.take() else { return Ok(()) };
        let (mut lines, replies) = connection.split();
        // A client may be silent for as long as its child has something to say.
        lines.set_idle_timeout(None);
        let to_child = LineWriter::with_codec(stdin, self.input.clone());
        let from_child = LineReader::with_codec(stdout, self.output.clone());
        // One only: who does not take what was wrong with its lines is not read.
        let (complain, complaints) = mpsc::channel(1);
        let activity = Activity::new();
        let mut forwarding = pin!(forward(peer, lines, to_child, complain, &activity));
        let mut answering = pin!(reply(from_child, complaints, replies, &activity));
        let mut idle = pin!(activity.over(self.idle_timeout));
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
                () = &mut idle => return Err(Error::Timeout(TimeoutKind::Idle)),
            }
        }
    }
}

fn cannot_run(program: &OsStr, why: &which::Error) -> Failure {
    Failure::other(format_args!("cannot run {}", show::escaped(program.as_encoded_bytes())), why)
}

/// The client's lines, to the child. Ends with them, which closes its stdin.
async fn forward(
    peer: Peer,
    mut lines: LineReader<impl AsyncRead + Unpin>,
    mut to_child: LineWriter<ChildStdin>,
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
    mut from_child: LineReader<ChildStdout>,
    mut complaints: mpsc::Receiver<String>,
    mut replies: LineWriter<impl AsyncWrite + Unpin>,
    activity: &Activity,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            Some(complaint) = complaints.recv() => replies.feed_line(complaint).await?,
            batch = from_child.next_batch() => {
                let Some(batch) = batch? else { break };
                for line in &batch {
                    activity.mark();
                    let refused = match line {
                        Ok(line) => match replies.feed_line(line).await {
                            Err(Error::Encode(refused)) => format!("error: reply refused: {refused}"),
                            fed => {
                                fed?;
                                continue;
                            }
                        },
                        Err(LineError::TooLong { max_length, .. }) => {
                            format!("error: reply of more than {max_length} bytes, the limit (max_encoded_length)")
                        }
                        Err(bad) => format!("error: reply refused: {bad}"),
                    };
                    replies.feed_line(refused).await?;
                }
            }
        }
        replies.flush().await?;
    }
    while let Ok(complaint) = complaints.try_recv() {
        replies.feed_line(complaint).await?;
    }
    replies.shutdown().await
}

/// When a line or a reply last passed.
struct Activity {
    start: Instant,
    /// In milliseconds from `start`.
    last: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    fn mark(&self) {
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(passed, Relaxed);
    }

    /// Nothing has passed for so long.
    async fn over(&self, idle_timeout: Option<Duration>) {
        while let Some(end) = idle_timeout
            .and_then(|after| after.checked_add(Duration::from_millis(self.last.load(Relaxed))))
            .and_then(|after| self.start.checked_add(after))
        {
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
        std::future::pending().await
    }
}

/// A child. Dropped, it is killed, and reaped by the runtime.
struct Running {
    child: Child,
    pipes: Option<(ChildStdin, ChildStdout)>,
}

impl Running {
    /// It has closed its stdout, and is given time to end.
    async fn end(mut self, peer: Peer) {
        match timeout(LAST_WORDS, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => info!(%peer, %status, "the command has ended"),
            Ok(Ok(status)) => warn!(%peer, %status, "the command has ended"),
            Ok(Err(error)) => warn!(%peer, %error, "the command is lost"),
            Err(_) => {
                warn!(%peer, "the command has closed its stdout and is killed");
                self.cut().await;
            }
        }
    }

    async fn cut(mut self) {
        self.kill();
        _ = self.child.wait().await;
    }

    /// With all that it has started, where it is still there.
    fn kill(&mut self) {
        #[cfg(unix)]
        if let Some(group) =
            self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
        {
            _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        _ = self.child.start_kill();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All that a child may be told of its connection, or may have inherited from a server around this one.
const VARIABLES: [&str; 17] = [
    "PROTO",
    "TCPLOCALHOST",
    "TCPLOCALIP",
    "TCPLOCALPORT",
    "TCPREMOTEHOST",
    "TCPREMOTEINFO",
    "TCPREMOTEIP",
    "TCPREMOTEPORT",
    "TCPINTERFACE",
    "UNIXLOCALPATH",
    "UNIXLOCALUID",
    "UNIXLOCALGID",
    "UNIXLOCALPID",
    "UNIXREMOTEPATH",
    "UNIXREMOTEEUID",
    "UNIXREMOTEEGID",
    "UNIXREMOTEPID",
];

/// What ucspi-tcp's tcpserver and ucspi-unix's unixserver tell, but for names that would have to be looked up.
fn environment(connection: &Connection, local: &Address) -> Vec<(&'static str, OsString)> {
    let mut variables = Vec::new();
    let mut tell = |variable, value: &dyn ToString| variables.push((variable, value.to_string().into()));
    match connection.peer() {
        Peer::Tcp(remote) => {
            tell("PROTO", &"TCP");
            tell("TCPREMOTEIP", &remote.ip().to_canonical());
            tell("TCPREMOTEPORT", &remote.port());
            let io = connection.io().downcast_ref::<TcpStream>();
            if let Some(local) = io.and_then(|io| io.local_addr().ok()) {
                tell("TCPLOCALIP", &local.ip().to_canonical());
                tell("TCPLOCALPORT", &local.port());
            }
        }
        #[cfg(unix)]
        Peer::Unix { pid, uid, gid } => {
            tell("PROTO", &"UNIX");
            tell("UNIXREMOTEEUID", &uid);
            tell("UNIXREMOTEEGID", &gid);
            if let Some(pid) = pid {
                tell("UNIXREMOTEPID", &pid);
            }
            tell("UNIXLOCALPID", &std::process::id());
            tell("UNIXLOCALUID", &rustix::process::getuid().as_raw());
            tell("UNIXLOCALGID", &rustix::process::getgid().as_raw());
            let path = match local {
                Address::Unix(path) => path.into(),
                other => other.to_string().into(),
            };
            variables.push(("UNIXLOCALPATH", path));
        }
        // A stream of another kind is not told of.
        _ => _ = local,
    }
    variables
}
