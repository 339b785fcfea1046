//! Child processes, signals and system limits.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::exec::{ANY_COMMAND, IDLE_TIMEOUT, assert_ends, client_of};
use crate::support::{Client, NEVER, PATIENCE, Process, Server, lineframe, promptly};

/// Prints its process ID and that of its child. Neither ends when stdin is closed.
const PROCESS_TREE: [&str; 3] = ["sh", "-c", "echo $$; sleep 1000 & echo $!; wait"];

fn ids(client: &mut Client) -> Vec<String> {
    let lines = client.lines(2);
    lines.iter().map(|line| String::from_utf8_lossy(line).trim_end().to_owned()).collect()
}

fn eventually(failure: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{failure}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Returns `command` under `prlimit` with these limits. As root, it runs as another user, whose
/// other processes do not count towards the limits.
fn limited(limits: &[&str], command: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_lineframe");
    let mut limited = match rustix::process::getuid().is_root() {
        true => {
            let mut setpriv = Command::new("setpriv");
            setpriv.args(["--reuid=54321", "--regid=54321", "--clear-groups", "prlimit"]);
            setpriv
        }
        false => Command::new("prlimit"),
    };
    limited.args(limits).arg(program).args(command);
    limited
}

/// Returns whether [`limited`] works here. The other user may lack access to the program.
fn can_be_limited() -> bool {
    let can = limited(&["--core=0"], &["--version"]).output().is_ok_and(|ended| ended.status.success());
    if !can {
        println!("skipped: no prlimit or setpriv, or the program is out of reach for another user");
    }
    can
}

fn listening(process: &Process) -> String {
    process.out.until_contains("\n");
    let said = process.out.bytes();
    String::from_utf8_lossy(&said).trim_end().trim_start_matches("listening ").to_owned()
}

#[test]
fn background_processes_end_with_their_connection() {
    let server = Server::exec(&[], &["sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"]);
    for mut client in server.clients() {
        let id = client.rest();
        assert_ends(String::from_utf8_lossy(&id).trim_end());
    }
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn inherited_stdout_does_not_keep_a_connection_open() {
    let server = Server::exec(
        &["--idle-timeout", NEVER, "--drain-timeout", NEVER],
        &["sh", "-c", "sleep 1000 & echo $!"],
    );
    let mut client = Client::tcp(&server.tcp);
    let id = promptly(|| client.rest());
    assert_ends(String::from_utf8_lossy(&id).trim_end());
    assert_eq!(promptly(|| server.stop()).code, Some(0));
}

#[test]
fn stdout_inherited_by_another_group_does_not_block() {
    let server = Server::exec(&["--idle-timeout", NEVER], &["sh", "-c", "setsid sleep 130 & echo said"]);
    let mut client = Client::tcp(&server.tcp);
    assert_eq!(promptly(|| client.rest()), "said\n");
}

#[test]
fn output_after_the_command_is_passed_on() {
    let server = Server::exec(&[], &["sh", "-c", "(sleep 0.1; echo late) & echo early"]);
    assert_eq!(Client::tcp(&server.tcp).rest(), "early\nlate\n");
}

/// Stops the server, lets `act` run, and continues the server after `pause`.
fn while_stopped(server: &Server, pause: Duration, act: impl FnOnce()) {
    server.process.signal(Signal::STOP);
    act();
    // Longer than the server's timeout, which expires while the server is stopped.
    thread::sleep(pause);
    server.process.signal(Signal::CONT);
}

#[test]
fn idle_timeout_accepts_lines_sent_while_stopped() {
    let server = Server::exec(&["--idle-timeout", IDLE_TIMEOUT], &["cat"]);
    let mut clients: Vec<_> = (0..10).flat_map(|_| server.clients()).collect();
    for _ in 0..2 {
        for client in &mut clients {
            client.write("a\n");
            assert_eq!(client.line(), "a\n");
        }
    }
    while_stopped(&server, Duration::from_secs(4), || clients.iter().for_each(|client| client.write("b\n")));
    for client in &mut clients {
        assert_eq!(client.line(), "b\n");
    }
}

#[test]
fn replies_written_while_stopped_are_sent() {
    let folder = TempDir::new().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let script = format!("(read x <'{}'; echo late) & echo $$", fifo.display());
    let server = Server::exec(&["--workers", "1"], &["sh", "-c", &script]);
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    // The server kills background processes after 2 s. On a busy machine that may happen before the
    // server is stopped, so there are five attempts.
    let all_are_sent = |_| {
        let mut clients: Vec<_> = (0..8).map(|_| Client::tcp(&server.tcp)).collect();
        for client in &mut clients {
            let id = String::from_utf8_lossy(&client.line()).trim_end().to_owned();
            eventually("the child does not end", || {
                fs::read_to_string(format!("/proc/{id}/stat")).map_or(true, |stat| stat.contains(" Z "))
            });
        }
        // This round trip gives the server time to notice that the children have ended.
        Client::tcp(&server.tcp).line();
        while_stopped(&server, Duration::from_secs(3), || {
            // Opening fails if the background processes were killed.
            let fifo = OpenOptions::new().write(true).custom_flags(nonblocking).open(&fifo);
            _ = fifo.and_then(|mut fifo| fifo.write_all("go\n".repeat(9).as_bytes()));
        });
        clients.iter_mut().all(|client| client.rest() == "late\n")
    };
    assert!((0..5).any(all_are_sent), "replies are missing in every attempt");
}

#[test]
fn a_slow_reader_is_not_idle() {
    let server = Server::exec(&["--idle-timeout", IDLE_TIMEOUT, "--write-timeout", NEVER], &ANY_COMMAND);
    let mut slow = Client::unix(&server.path());
    slow.line();
    slow.write("seq 200000\n");
    // Meanwhile, two other clients run into the idle timeout, one after the other.
    for _ in 0..2 {
        let (mut idle, _) = client_of(&server, "sleep 1000");
        assert_eq!(idle.rest(), "");
    }
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(slow.rest() == expected, "cut");
}

#[test]
fn reset_ends_children_that_do_not_read() {
    let script = ["sh", "-c", "echo $$; echo unread; exec sleep 1000"];
    let server = Server::exec(&["--idle-timeout", NEVER], &script);
    for client in server.clients() {
        let mut socket = client.into_inner();
        let mut id = String::new();
        while !id.ends_with('\n') {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            id.push(char::from(byte[0]));
        }
        let id = id.trim_end();
        let stdin = File::open(format!("/proc/{id}/fd/0")).unwrap();
        socket.set_nonblocking(true).unwrap();
        eventually("the child's stdin does not fill up", || {
            match socket.write("some line\n".repeat(1000).as_bytes()) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("{error}"),
                _ => {}
            }
            rustix::io::ioctl_fionread(&stdin).unwrap() > 60_000
        });
        eventually("the client has no unread bytes", || rustix::io::ioctl_fionread(&socket).unwrap() > 0);
        // Closing a socket with unread bytes resets the connection.
        drop(socket);
        assert_ends(id);
    }
}

#[test]
fn a_slow_exec_does_not_stop_other_clients() {
    // A full path, because strace delays each attempt to find the program in `PATH`.
    let server = Server::exec(&["--workers", "1"], &["/bin/sh", "-c", ANY_COMMAND[2]]);
    let (mut client, _) = client_of(&server, "cat");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", "inject=execve:delay_enter=3000000", "-p"]);
    let mut strace = match Command::new("strace").args(["-o", "/dev/null", "true"]).status() {
        Ok(status) if status.success() => Process::start(strace.arg(server.process.id().to_string())),
        _ => return eprintln!("skipped: strace does not work here"),
    };
    eventually("strace does not attach", || strace.err.so_far().contains("attached") || !strace.is_running());
    if !strace.is_running() {
        return eprintln!("skipped: strace is not allowed to attach here");
    }
    let program = |id: &str| fs::read_link(format!("/proc/{id}/exe")).ok();
    let own = program(&server.process.id().to_string());
    let is_starting = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.process.id())).unwrap().flatten();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        lists.into_iter().any(|list| list.split_whitespace().any(|id| program(id) == own))
    };
    let is_answered_first = |_| {
        let mut slow = Client::tcp(&server.tcp);
        eventually("no child starts", &is_starting);
        client.write("a\n");
        assert_eq!(client.line(), "a\n");
        let start = Instant::now();
        slow.line();
        start.elapsed() > Duration::from_secs(1)
    };
    assert!((0..5).any(is_answered_first), "the client waited for the slow exec in every attempt");
}

#[test]
fn orphans_are_reaped_as_pid_1() {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    if !Command::new("unshare")
        .args(["-Urpf", "--mount-proc", "true"])
        .status()
        .is_ok_and(|done| done.success())
    {
        eprintln!("skipped: user namespaces are not available");
        return;
    }
    command.args([env!("CARGO_BIN_EXE_lineframe"), "serve", "127.0.0.1:0", "--exec", "--", "sh", "-c"]);
    // The first orphan leaves the process group, the second stays in it.
    command.arg("(setsid true &); (true &); read line; exit 3");
    let process = Process::start(&mut command);
    let children = |id: &str| fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let tcp = listening(&process);
    let server = children(&process.id().to_string()).trim().to_owned();
    let all = || {
        let tasks = fs::read_dir(format!("/proc/{server}/task")).unwrap().flatten();
        tasks
            .map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default())
            .collect::<String>()
    };
    for _ in 0..3 {
        let mut client = Client::tcp(&tcp);
        client.write("end\n");
        assert_eq!(client.rest(), "");
        process.err.until_contains("exit status: 3");
        eventually("a zombie stays", || all().is_empty());
    }
}

/// Returns whether this test runs under nohup(1) or the like. The server then ignores SIGHUP too.
fn hangup_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim);
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
    let hangup = ignored & (1 << (Signal::HUP.as_raw() - 1)) != 0;
    if hangup {
        println!("skipped: SIGHUP is ignored, as under nohup");
    }
    hangup
}

#[test]
fn hangup_drains() {
    if hangup_is_ignored() {
        return;
    }
    let server = Server::exec(&["--drain-timeout", NEVER], &["cat"]);
    let mut client = Client::tcp(&server.tcp);
    client.write("a\n");
    assert_eq!(client.line(), "a\n");
    server.process.signal(Signal::HUP);
    assert_eq!(client.rest(), "");
    let path = server.path();
    let ended = server.process.end();
    assert!(ended.code == Some(0) && !path.exists(), "{ended:?}");
}

#[test]
fn a_second_hangup_does_not_end_the_drain() {
    if hangup_is_ignored() {
        return;
    }
    let server = Server::exec(&["--drain-timeout", NEVER], &["sh", "-c", "echo ready; exec sleep 1000"]);
    let mut client = Client::tcp(&server.tcp);
    assert_eq!(client.line(), "ready\n");
    server.process.signal(Signal::HUP);
    eventually("connections are still accepted", || std::net::TcpStream::connect(&server.tcp).is_err());
    server.process.signal(Signal::HUP);
    server.process.signal(Signal::USR1);
    server.process.err.until_contains("counters");
    assert!(!server.process.err.so_far().contains("stopped"));
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.end().code, Some(1));
}

#[test]
fn ignored_hangup_stays_ignored() {
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_lineframe");
    command.args(["-c", r#"trap "" HUP; exec "$0" serve 127.0.0.1:0"#, program]);
    let process = Process::start(&mut command);
    let tcp = listening(&process);
    process.signal(Signal::HUP);
    let mut client = Client::tcp(&tcp);
    client.write("a\n");
    assert_eq!(client.line(), "A\n");
}

#[test]
fn quit_ends_children_and_removes_the_socket() {
    let server = Server::exec(&["--drain-timeout", NEVER], &PROCESS_TREE);
    let ids: Vec<_> = server.clients().iter_mut().flat_map(ids).collect();
    // The two clients above have disconnected. This one is connected when the signal arrives.
    let mut client = Client::tcp(&server.tcp);
    let last = self::ids(&mut client);
    server.process.signal(Signal::QUIT);
    let path = server.path();
    let ended = promptly(|| server.process.end());
    assert!(ended.code == Some(1) && !path.exists(), "{ended:?}");
    ids.iter().chain(&last).for_each(|id| assert_ends(id));
}

#[test]
fn usr1_logs_the_counters() {
    let server = Server::start();
    server.process.signal(Signal::USR1);
    server.process.err.until_contains("counters accepted=0");
    assert_eq!(server.stop().code, Some(0));
}

#[cfg(target_env = "gnu")]
#[test]
fn signals_end_a_name_lookup() {
    let folder = TempDir::new().unwrap();
    let aliases = folder.path().join("aliases");
    assert!(Command::new("mkfifo").arg(&aliases).status().unwrap().success());
    for arguments in [&["serve", "lineframe-no-host:0"][..], &["inspect", "lineframe-no-host:0", "@x"]] {
        let mut command = lineframe(arguments);
        // glibc reads `HOSTALIASES` during the lookup. A FIFO blocks it until the test writes.
        let process = Process::start(command.env("HOSTALIASES", &aliases));
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let mut held: Option<File> = None;
        eventually("no name lookup starts", || {
            held = OpenOptions::new().write(true).custom_flags(nonblocking).open(&aliases).ok();
            held.is_some()
        });
        process.signal(Signal::TERM);
        promptly(|| process.end()).assert_failed(1, "", "interrupted");
    }
}

#[test]
fn a_lack_of_threads_is_exit_1() {
    if !can_be_limited() {
        return;
    }
    for command in [&["serve", "127.0.0.1:0"][..], &["bench", "@x"], &["send", "@x"], &["inspect"]] {
        for threads in ["--nproc=1", "--nproc=2", "--nproc=4"] {
            let process = Process::start(limited(&[threads], command).stdin(Stdio::null()));
            promptly(|| process.end()).assert_failed(1, "", "more threads");
        }
    }
}

#[test]
fn a_lack_of_descriptors_is_exit_1() {
    if !can_be_limited() {
        return;
    }
    for command in [&["serve", "127.0.0.1:0"][..], &["bench", "@x"], &["inspect"]] {
        let process = Process::start(&mut limited(&["--nofile=10"], command));
        process.end().assert_failed(1, "", "open files");
    }
}

#[test]
fn descriptors_bound_the_default_of_max_connections() {
    if !can_be_limited() {
        return;
    }
    let process = Process::start(&mut limited(&["--nofile=66"], &["serve", "127.0.0.1:0"]));
    let tcp = listening(&process);
    let mut clients: Vec<_> = (0..2).map(|_| Client::tcp(&tcp)).collect();
    let mut third = Client::tcp(&tcp);
    third.write("c\n");
    for _ in 0..10 {
        for client in &mut clients {
            client.write("a\n");
            assert_eq!(client.line(), "A\n");
        }
    }
    process.signal(Signal::USR1);
    process.err.until_contains("counters accepted=2");
    drop(clients);
    assert_eq!(third.line(), "C\n");
}

#[test]
fn the_limit_is_raised_but_not_for_children() {
    if !can_be_limited() {
        return;
    }
    let command = ["serve", "127.0.0.1:0", "--", "sh", "-c", "read line; ulimit -Sn"];
    let process = Process::start(&mut limited(&["--nofile=100:900"], &command));
    let mut client = Client::tcp(&listening(&process));
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("900"), "{files}");
    client.write("go\n");
    assert_eq!(client.line(), "100\n");
}

#[test]
fn inspect_raises_the_limit_of_descriptors() {
    if !can_be_limited() {
        return;
    }
    let arguments = ["inspect", "127.0.0.1:0", "@nobody"];
    let process = Process::start(&mut limited(&["--nofile=100:900"], &arguments));
    process.err.until_contains("listening");
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("900"), "{files}");
}

#[test]
fn exec_may_be_off_or_left_out() {
    let server = Server::with(|serve| _ = serve.env("LINEFRAME_EXEC", "0"));
    let mut client = Client::tcp(&server.tcp);
    client.write("a\n");
    assert_eq!(client.line(), "A\n");
    let server = Server::with(|serve| _ = serve.args(["--", "echo", "hello"]));
    assert_eq!(Client::tcp(&server.tcp).rest(), "hello\n");
}

#[test]
fn second_signal_ends_inspected_commands_and_children() {
    let script = "trap '' TERM INT; echo $$; sleep 1000 & echo $!; wait";
    let mut command = Command::new("setsid");
    command.args([env!("CARGO_BIN_EXE_lineframe"), "inspect", "--", "sh", "-c", script]);
    let mut process = Process::start(&mut command);
    let _stdin = process.take_stdin();
    process.out.until("two ids", |out| out.iter().filter(|byte| **byte == b'\n').count() == 2);
    let out = process.out.bytes();
    process.signal(Signal::TERM);
    process.signal(Signal::INT);
    String::from_utf8_lossy(&out).lines().for_each(assert_ends);
}
