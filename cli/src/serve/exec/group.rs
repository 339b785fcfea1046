//! A child and its process group, which never outlive their connection.
//!
//! The system may reuse a process id as soon as the process is reaped, so the group is always
//! killed first. Tokio reaps a child as soon as it exits; this module therefore uses children of
//! `std`.

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::serve::GONE;

/// A child and its descendants that stay in its process group. Killed on drop.
pub(super) struct ProcessGroup {
    /// Not reaped yet. `None` only while the `ProcessGroup` is consumed.
    leader: Option<Child>,
}

impl ProcessGroup {
    /// Starts the command on a blocking thread, because starting may take long, for example on a
    /// network file system. If the future is dropped, the child is killed after it has started.
    pub(super) async fn spawn(command: Command) -> io::Result<Self> {
        // `kill_all` waits for children counted here.
        let starting = Starting::begin();
        spawn_blocking(|| Self::spawn_now(command, starting)).await?
    }

    fn spawn_now(mut command: Command, starting: Starting) -> io::Result<Self> {
        // Ctrl-C must stop only the server: connections need their children during the drain.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let leader = command.spawn()?;
        children().running.insert(leader.id());
        drop(starting);
        system::restore_descriptor_limit(&leader);
        Ok(Self { leader: Some(leader) })
    }

    /// Returns stdin and stdout of the child. Succeeds only once.
    pub(super) fn take_pipes(&mut self) -> io::Result<(ChildStdin, ChildStdout)> {
        let pipes = self.leader.as_mut().and_then(|leader| leader.stdin.take().zip(leader.stdout.take()));
        let (stdin, stdout) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok((ChildStdin::from_std(stdin)?, ChildStdout::from_std(stdout)?))
    }

    /// Returns stderr of the child, only once.
    pub(super) fn take_stderr(&mut self) -> Option<ChildStderr> {
        ChildStderr::from_std(self.leader.as_mut()?.stderr.take()?).ok()
    }

    /// Waits until the leader exits, without reaping it. Cancel safe.
    pub(super) async fn exited(&mut self) {
        if let Some(leader) = &mut self.leader {
            system::exited(leader).await;
        }
    }

    /// Kills every process of the group and reaps the leader. Returns the leader's own exit status
    /// if the leader exited before.
    pub(super) async fn kill_and_reap(mut self) -> io::Result<ExitStatus> {
        if let Some(leader) = &mut self.leader {
            system::kill(leader);
        }
        self.exited().await;
        let mut children = children();
        let mut leader = self.leader.take().ok_or(io::ErrorKind::NotFound)?;
        children.running.remove(&leader.id());
        // Does not block, because the leader has exited.
        leader.wait()
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        let Some(mut leader) = self.leader.take() else { return };
        system::kill(&mut leader);
        // Hold the lock so that `reap` does not run between the removal and the insertion.
        let mut children = children();
        children.running.remove(&leader.id());
        if !matches!(leader.try_wait(), Ok(Some(_))) {
            children.dropped.push(leader);
        }
    }
}

#[derive(Default)]
struct Children {
    /// Number of children being started; not in `running` yet.
    starting: usize,
    /// Whether reaping of orphans was postponed because a child was being started.
    must_reap: bool,
    /// Leaders of all groups that are neither reaped nor dropped.
    running: HashSet<u32>,
    /// Killed children that are not reaped yet.
    dropped: Vec<Child>,
}

fn children() -> MutexGuard<'static, Children> {
    static CHILDREN: LazyLock<Mutex<Children>> = LazyLock::new(Mutex::default);
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Guard that counts a child being started. Does not hold the lock on `Children`.
struct Starting;

/// Notified when `starting` becomes 0.
static ALL_STARTED: Condvar = Condvar::new();
/// Notified when `starting` becomes 0 and `must_reap` is set.
static MUST_REAP: Notify = Notify::const_new();

impl Starting {
    fn begin() -> Self {
        children().starting += 1;
        Self
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let mut children = children();
        children.starting -= 1;
        if children.starting == 0 {
            ALL_STARTED.notify_all();
            if std::mem::take(&mut children.must_reap) {
                MUST_REAP.notify_one();
            }
        }
    }
}

/// Kills all remaining groups when the server exits. Waits up to a second for children that are
/// being started.
pub(in crate::serve) fn kill_all() {
    let waited = ALL_STARTED.wait_timeout_while(children(), GONE, |children| children.starting > 0);
    let (children, _) = waited.unwrap_or_else(PoisonError::into_inner);
    for &leader in &children.running {
        system::kill_group(leader);
    }
}

/// Reaps dropped children whenever a child exits; also orphans, as PID 1 or child subreaper.
pub(in crate::serve) async fn reap() {
    let mut exits = system::Exits::new();
    loop {
        {
            let mut children = children();
            children.dropped.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            // A child being started is not in `running` yet and would look like an orphan.
            children.must_reap = children.starting > 0;
            if !children.must_reap {
                let Children { running, dropped, .. } = &*children;
                exits
                    .reap_orphans(|id| running.contains(&id) || dropped.iter().any(|child| child.id() == id));
            }
        }
        tokio::select! {
            () = exits.next() => {}
            () = MUST_REAP.notified() => {}
        }
    }
}

/// The stdout of a child. When `limit` is cancelled, the stream ends after the bytes in the pipe.
pub(super) struct StdoutUntil {
    stdout: ChildStdout,
    limit: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Bytes left to read; `None` until `limit` is cancelled.
    left: Option<usize>,
}

impl StdoutUntil {
    pub(super) fn new(stdout: ChildStdout, limit: CancellationToken) -> Self {
        Self { stdout, limit: Box::pin(limit.cancelled_owned()), left: None }
    }
}

impl AsyncRead for StdoutUntil {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stdout, limit, left } = &mut *self;
        if left.is_none() && limit.as_mut().poll(cx).is_ready() {
            *left = Some(system::unread(stdout));
        }
        let Some(left) = left else { return Pin::new(stdout).poll_read(cx, buffer) };
        let length = buffer.remaining().min(*left);
        if length == 0 {
            return Poll::Ready(Ok(()));
        }
        // Read directly, because Tokio may not know yet that the pipe is readable.
        let count = system::read(stdout, buffer.initialize_unfilled_to(length))?;
        buffer.advance(count);
        *left = if count == 0 { 0 } else { *left - count };
        Poll::Ready(Ok(()))
    }
}

#[cfg(unix)]
mod system {
    use std::process::Child;
    use std::{fs, io};

    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process_group, waitid};
    use tokio::process::ChildStdout;
    use tokio::signal::unix::{self, SignalKind};

    fn pid(id: u32) -> Option<Pid> {
        i32::try_from(id).ok().and_then(Pid::from_raw)
    }

    /// Kills the group of a leader that is not reaped yet, so that its id cannot belong to others.
    pub(super) fn kill(leader: &mut Child) {
        kill_group(leader.id());
    }

    pub(super) fn kill_group(leader: u32) {
        if let Some(group) = pid(leader) {
            _ = kill_process_group(group, Signal::KILL);
        }
    }

    pub(super) async fn exited(leader: &Child) {
        let Some(pid) = pid(leader.id()) else { return };
        #[cfg(target_os = "linux")]
        if let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK) {
            use tokio::io::{Interest, unix::AsyncFd};

            #[allow(deprecated, reason = "the replacement is unsafe; an OwnedFd cannot be closed by others")]
            let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE);
            if let Ok(pidfd) = pidfd {
                if pidfd.readable().await.is_ok() {
                    return;
                }
            }
        }
        // Register for SIGCHLD before the first check, so that no exit is missed.
        let mut exits = unix::signal(SignalKind::child()).ok();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while let Ok(None) = waitid(WaitId::Pid(pid), options) {
            match &mut exits {
                Some(exits) => _ = exits.recv().await,
                None => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    }

    /// Returns the number of bytes in the pipe.
    pub(super) fn unread(stdout: &ChildStdout) -> usize {
        rustix::io::ioctl_fionread(stdout).map_or(0, |count| count.try_into().unwrap_or(usize::MAX))
    }

    pub(super) fn read(stdout: &ChildStdout, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(stdout, buffer)?)
    }

    /// Restores the child's soft limit for open files, because the child may use select(2).
    pub(super) fn restore_descriptor_limit(leader: &Child) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some((pid, limit)) = pid(leader.id()).zip(crate::descriptors::at_start()) {
            _ = rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, limit);
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = leader;
    }

    /// Waits for children to exit, and reaps orphans that this process adopted.
    pub(super) struct Exits {
        signal: Option<unix::Signal>,
        adopts: bool,
    }

    impl Exits {
        pub(super) fn new() -> Self {
            #[cfg(target_os = "linux")]
            let is_subreaper = rustix::process::child_subreaper().is_ok_and(|is_one| is_one.is_some());
            #[cfg(not(target_os = "linux"))]
            let is_subreaper = false;
            Self {
                signal: unix::signal(SignalKind::child()).ok(),
                adopts: getpid().is_init() || is_subreaper,
            }
        }

        /// Reaps every exited child that is not `known`.
        pub(super) fn reap_orphans(&self, known: impl Fn(u32) -> bool) {
            if !self.adopts {
                return;
            }
            let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
            let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
            for list in lists {
                let ids = list.split_whitespace().filter_map(|id| id.parse().ok());
                for orphan in ids.filter(|&id| !known(id)).filter_map(pid) {
                    _ = waitid(WaitId::Pid(orphan), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
                }
            }
        }

        pub(super) async fn next(&mut self) {
            match &mut self.signal {
                Some(signal) => _ = signal.recv().await,
                None => std::future::pending().await,
            }
        }
    }
}

/// Fallback for systems without process groups: handles only the child itself.
#[cfg(not(unix))]
mod system {
    use std::io;
    use std::process::Child;
    use std::time::Duration;

    use tokio::process::ChildStdout;

    const PAUSE: Duration = Duration::from_millis(50);

    pub(super) fn kill(leader: &mut Child) {
        _ = leader.kill();
    }

    pub(super) fn kill_group(_: u32) {}

    pub(super) async fn exited(leader: &mut Child) {
        while let Ok(None) = leader.try_wait() {
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub(super) fn unread(_: &ChildStdout) -> usize {
        0
    }

    pub(super) fn read(_: &ChildStdout, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    pub(super) fn restore_descriptor_limit(_: &Child) {}

    pub(super) struct Exits;

    impl Exits {
        pub(super) fn new() -> Self {
            Self
        }

        pub(super) fn reap_orphans(&self, _: impl Fn(u32) -> bool) {}

        pub(super) async fn next(&mut self) {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
