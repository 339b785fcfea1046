use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Client, Ended, NEVER, Process, Scripted, Server, Terminal, lineframe, promptly, run};

/// Runs `bench` with `options` and no warm-up against the server at `address`.
fn bench(options: &[&str], address: &str) -> Ended {
    run([&["bench", "--warm-up", "0s"], options, &[address]].concat(), "")
}

/// Runs `bench --json`. Returns the JSON report and the ended process.
fn measured(options: &[&str], address: &str) -> (Value, Ended) {
    let ended = bench(&[&["--json"], options].concat(), address);
    let object = serde_json::from_slice(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    (object, ended)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

/// Asserts the exit code and that the last line of stderr contains `said`.
fn assert_failed(ended: &Ended, code: i32, said: &str) {
    let err = String::from_utf8_lossy(&ended.err);
    let last = err.lines().last().unwrap_or_default();
    assert_eq!(ended.code, Some(code), "{err}");
    assert!(last.starts_with("lineframe: ") && last.contains(said), "{err}");
}

#[test]
fn measured_lines_are_counted_once() {
    let server = Server::start();
    let path = server.path();
    for (address, options) in [
        (server.tcp.as_str(), &["--count", "1000"][..]),
        (
            path.to_str().unwrap(),
            &["--count", "1003", "--connections", "7", "--threads", "3", "--window", "5"],
        ),
        (&server.tcp, &["--count", "5000", "--window", "2000", "--length", "1k", "--connections", "3"]),
        (&server.tcp, &["--count", "100", "--rate", "1000", "--connections", "3", "--threads", "2"]),
        (&server.tcp, &["--count", "2000", "--warm-up", "100ms"]),
        (&server.tcp, &["--count", "500", "--duration", "1h"]),
        (&server.tcp, &["--count", "10", "--length", "0"]),
        (&server.tcp, &["--count", "10", "--length", "1", "--crlf"]),
    ] {
        let arguments = [&["bench", "--json", "--warm-up", "0s"], options, &[address]].concat();
        let arguments: Vec<_> = match options.contains(&"--warm-up") {
            true => [&["bench", "--json"], options, &[address]].concat(),
            false => arguments,
        };
        let ended = run(&arguments, "");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let object: Value = serde_json::from_slice(&ended.out).unwrap();
        let count = options[1].parse::<u64>().unwrap();
        assert_eq!(object["replies"], count, "{options:?}");
        // The connections share the lines evenly; shares differ by at most 1 line.
        let connections = object["connections"].as_u64().unwrap();
        let (least, most) = (count / connections, count.div_ceil(connections));
        let shares = &object["replies_per_connection"];
        assert_eq!((&shares["min"], &shares["max"]), (&least.into(), &most.into()), "{options:?}");
        assert!((least..=most).contains(&shares["median"].as_u64().unwrap()), "{shares}");
        assert_eq!((&object["missing"], &object["failure"]), (&0.into(), &Value::Null));
        let slots = object["over_time"].as_array().unwrap();
        let replies: f64 = slots.iter().map(|slot| number(&slot["replies"])).sum();
        assert_eq!(replies, number(&object["replies"]), "{options:?}");
        for latencies in [&object["latency_ns"]["raw"], &object["latency_ns"]["corrected"]] {
            let keys = ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"];
            let values = keys.map(|key| number(&latencies[key]));
            assert!(values[0] > 0.0 && values.is_sorted(), "{latencies}");
        }
        let pids = &object["cpu_ns_per_line"]["server_pids"];
        assert_eq!(*pids, Value::from(vec![server.process.id()]), "{options:?}");
        assert!(number(&object["cpu_ns_per_line"]["bench"]) > 0.0);
    }
}

#[test]
fn the_table_has_raw_and_corrected_latencies() {
    let server = Server::start();
    let ended = bench(&["--count", "500", "--connections", "2", "--rate", "2000"], &server.tcp);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = format!(
        "{}: 2 connections, 2000 lines per second, 64 bytes\n500 lines, after 0s of warm-up\n",
        server.tcp
    );
    assert!(String::from_utf8_lossy(&ended.err).starts_with(&said), "{ended:?}");
    let out = String::from_utf8(ended.out.into()).unwrap();
    assert!(out.starts_with("\nreplies     500, in "), "{out}");
    let rows =
        ["min", "50 %", "90 %", "99 %", "99.9 %", "99.99 %", "max", "mean"].map(|row| format!("\n  {row} "));
    for row in ["\nlatency         raw   corrected\n", "\n  longest ", "\n  replies ", "\n  bench   "] {
        assert!(out.contains(row), "{out}");
    }
    for row in rows {
        assert!(out.contains(&row), "{out}");
    }
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
}

#[test]
fn bench_prints_its_table_on_a_terminal() {
    let server = Server::start();
    let options = ["bench", "--duration", "300ms", "--warm-up", "100ms", "--connections", "2"];
    let mut command = lineframe(options);
    command.arg(&server.tcp);
    let terminal = Terminal::start(command);
    terminal.shown.until_contains("latency         raw   corrected\r\n");
    assert!(terminal.end().success());
}

#[test]
fn frozen_server_shows_in_corrected_percentiles_and_timeline() {
    let server = Server::start();
    let directory = TempDir::new().unwrap();
    let picture = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let pictures = [picture("closed.svg"), picture("open.svg")];
    let common = ["bench", "--json", "--warm-up", "0s", "--duration", "4s", "--connections", "4", "--svg"];
    let start = |more: &[&str]| Process::start(lineframe(common).args(more).arg(&server.tcp));
    let processes = [start(&[&pictures[0]]), start(&[&pictures[1], "--rate", "500"])];
    for process in &processes {
        process.err.until("plan", |err| err.ends_with(b"of warm-up\n"));
    }
    let began = Instant::now();
    thread::sleep(Duration::from_millis(500));
    server.process.signal(Signal::STOP);
    let (froze, stopped) = (began.elapsed().as_secs_f64(), Instant::now());
    thread::sleep(Duration::from_secs(2));
    server.process.signal(Signal::CONT);
    // On a busy machine a sleep may last longer than requested.
    let frozen = stopped.elapsed().as_secs_f64();
    for (process, svg) in processes.into_iter().zip(pictures) {
        let ended = process.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let object: Value = serde_json::from_slice(&ended.out).unwrap();
        let latency = &object["latency_ns"];
        assert!(number(&latency["raw"]["p50"]) < 100e6, "{latency}");
        assert!(number(&latency["raw"]["max"]) > 1.9e9, "{latency}");
        // The server is frozen for half of the run. Lines due in that time wait between 0 and 2 s,
        // evenly distributed, so the corrected p90 exceeds 1 s.
        assert!(number(&latency["corrected"]["p90"]) > 1e9, "{latency}");
        assert!(number(&latency["raw"]["p90"]) < 100e6, "{latency}");
        let pause = &object["longest_pause"];
        assert!((frozen - 0.3..frozen + 1.0).contains(&number(&pause["seconds"])), "{pause}, {frozen}");
        assert!((froze - 0.3..froze + 1.0).contains(&number(&pause["from_seconds"])), "{pause}, {froze}");
        assert_eq!(object["missing"], 0);
        assert_frozen(&fs::read_to_string(&svg).unwrap(), object["rate"].is_null(), frozen);
    }
}

/// Checks the picture of a 4 s run in which the server was frozen for `frozen` seconds.
fn assert_frozen(svg: &str, is_closed: bool, frozen: f64) {
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("polyline class=\"raw\"") && svg.contains("polyline class=\"corrected\""));
    assert!(svg.contains("prefers-color-scheme: dark"));
    let bars = |class: &str| -> Vec<(f64, f64)> {
        let start = format!("<rect class=\"{class}\"");
        let value = |line: &str, name: &str| -> f64 {
            let value = line.split_once(&format!(" {name}=\"")).unwrap().1.split_once('"').unwrap().0;
            value.parse().unwrap()
        };
        let bars = svg.lines().filter(|line| line.starts_with(&start));
        bars.map(|line| (value(line, "x"), value(line, "height"))).collect()
    };
    // The plot is 696 wide, from x = 80 to x = 776. The replies have a gap as long as the freeze.
    let replies: Vec<_> = bars("replies").into_iter().map(|(x, _)| x).collect();
    let gap = replies.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    assert!((frozen - 0.4..frozen + 0.6).contains(&(gap / 696.0 * 4.0)), "{gap}, {frozen}");
    // In a closed loop, no line is sent during the freeze. In an open loop, the picture shows the
    // latency of each line at the time when the line was due. On the logarithmic axis, a power of
    // ten is at least 30 high.
    let longest = bars("longest");
    let highest = longest.iter().map(|(_, height)| *height).fold(0.0, f64::max);
    let within = longest.iter().filter(|(_, height)| *height > highest - 20.0).count() as f64;
    match is_closed {
        true => {
            assert!(within >= 1.0 && within < 0.1 * longest.len() as f64, "{within} of {}", longest.len())
        }
        false => assert!(within > 0.2 * longest.len() as f64, "{within} of {}", longest.len()),
    }
}

/// Starts a server that echoes each read of each connection immediately.
fn fast_echo() -> (TempDir, String) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("echo.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(count @ 1..) = socket.read(&mut buffer) {
                    if socket.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    let address = path.to_str().unwrap().to_owned();
    (directory, address)
}

#[test]
fn busy_bench_threads_cause_a_warning() {
    let (_directory, address) = fast_echo();
    // With this many replies queued, `bench` stays busy even while the server waits for a CPU.
    let load = ["--connections", "32", "--window", "20000", "--length", "4", "--duration", "1s"];
    let options = [&["--reply", "echo"], &load[..]].concat();
    let (object, ended) = measured(&options, &address);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(number(&object["cpu_ns_per_line"]["busiest_thread"]) > 0.9, "{}", object["cpu_ns_per_line"]);
    let warning = object["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("a thread of bench was ") && warning.contains("--threads"), "{warning}");
    assert!(
        String::from_utf8_lossy(&ended.err).contains(&format!("lineframe: warning: {warning}\n")),
        "{ended:?}"
    );

    // A low rate leaves the threads mostly idle, so there is no warning.
    let (object, _) = measured(&["--reply", "echo", "--duration", "500ms", "--rate", "100"], &address);
    assert!(number(&object["cpu_ns_per_line"]["busiest_thread"]) < 0.5, "{}", object["cpu_ns_per_line"]);
    assert_eq!(object["warnings"], Value::Array(vec![]));
}

#[test]
fn busy_poll_does_not_sleep() {
    let (_directory, address) = fast_echo();
    let options = ["--busy-poll", "--reply", "echo", "--duration", "1s", "--rate", "100"];
    let (object, ended) = measured(&options, &address);
    assert_eq!((ended.code, &object["replies"]), (Some(0), &json!(100)), "{ended:?}");
    // The lines are 10 ms apart. A polling thread uses most of that; a sleeping one some
    // microseconds.
    assert!(number(&object["cpu_ns_per_line"]["bench"]) > 1e6, "{object}");
}

#[test]
fn each_kind_of_reply_is_checked() {
    let (_directory, echo) = fast_echo();
    let upper = Server::start();
    for (address, reply, is_right) in [
        (&upper.tcp, "upper", true),
        (&upper.tcp, "length", true),
        (&upper.tcp, "any", true),
        (&upper.tcp, "echo", false),
        (&echo, "echo", true),
        (&echo, "upper", false),
    ] {
        let ended = promptly(|| bench(&["--timeout", NEVER, "--reply", reply, "--count", "100"], address));
        match is_right {
            true => assert_eq!(ended.code, Some(0), "{reply}: {ended:?}"),
            false => {
                assert_failed(&ended, 7, &format!("(--reply {reply})"));
                assert_failed(&ended, 7, "; 10 of 10 connections failed, 10 replies missing");
            }
        }
    }
    // The server sends the two replies in the wrong order.
    let swapped = Scripted::tcp(|mut client| {
        let lines = client.lines(2);
        client.write([&lines[1][..], &lines[0][..]].concat());
        client.rest()
    });
    let ended =
        bench(&["--reply", "echo", "--connections", "1", "--window", "2", "--count", "2"], &swapped.address);
    assert_failed(
        &ended,
        7,
        "reply 1 is not the line itself (--reply echo): got 64 bytes, expected 64; from byte 7 on, got \"1",
    );
    // Replies that are wrong from some byte on, and replies sent before their line.
    let second: String = "00000001".chars().chain(('a'..='z').cycle().skip(1)).take(64).collect();
    let early = format!("\n{second}\n");
    for (kept, answered, said) in [
        (64, &*early, r#"unexpected line after 1 reply: "00000001bcdefg"#),
        (64, "\nmore\n", r#"unexpected line after 1 reply: "more""#),
        (64, "\r\nmore\n", r#"unexpected line after 1 reply: "more""#),
        (
            64,
            "e\n",
            "reply 1 is not the line itself (--reply echo): got 65 bytes, expected 64; from byte 64 on, got \"e\", expected \"\"",
        ),
        (
            20,
            "\n",
            "reply 1 is not the line itself (--reply echo): got 20 bytes, expected 64; from byte 20 on, got \"\", expected \"",
        ),
    ] {
        let answered = answered.to_owned();
        let server = Scripted::tcp(move |mut client| {
            let line = client.line();
            client.write(&line[..10]);
            client.write([&line[10..kept], answered.as_bytes()].concat());
            client.rest()
        });
        let options = ["--reply", "echo", "--connections", "1", "--rate", "5", "--count", "2"];
        assert_failed(&bench(&options, &server.address), 7, said);
    }
    for (reply, said) in [
        ("any", ""),
        ("length", "reply 1 is not as long as the line (--reply length): got 2 bytes, expected 64"),
    ] {
        let server = Scripted::tcp(|mut client| {
            client.line();
            client.write("ok\n");
            client.rest()
        });
        let ended = bench(&["--reply", reply, "--connections", "1", "--count", "1"], &server.address);
        match said {
            "" => assert_eq!(ended.code, Some(0), "{ended:?}"),
            said => assert_failed(&ended, 7, said),
        }
    }
}

#[test]
fn each_failure_has_its_exit_code() {
    let once = |timeout, script: fn(&mut Client)| {
        let server = Scripted::tcp(move |mut client| {
            client.lines(2);
            script(&mut client);
        });
        let window = ["--connections", "1", "--window", "2", "--count", "2", "--reply", "any"];
        bench(&[&window[..], &["--timeout", timeout, "--max-length", "100"]].concat(), &server.address)
    };
    let missing = "; 1 of 1 connection failed, 1 reply missing";
    let left = once(NEVER, |client| client.write("one\n"));
    assert_failed(&left, 1, &format!("the server closed the connection after 1 of 2 replies{missing}"));
    assert!(left.out.starts_with(b"\nreplies     1, in "), "{left:?}");
    assert_failed(
        &once(NEVER, |client| client.write("one\ntw")),
        6,
        &format!("the server closed the connection after 2 bytes of a line{missing}"),
    );
    let too_long = once(NEVER, |client| client.write(format!("{}\n", "x".repeat(101))));
    assert_failed(&too_long, 6, "reply 1 is longer than the limit of 100 bytes (--max-length); 1 of 1");
    // 3 s is long enough for the first reply on a busy machine.
    let late = once("3s", |client| {
        client.write("one\n");
        client.rest();
    });
    assert_failed(
        &late,
        4,
        "no reply within the limit of 3s (--timeout); 1 of 1 connection failed, 1 reply missing",
    );

    let unasked = Scripted::tcp(|mut client| {
        client.line();
        client.write("one\n\x1b[2Jtwo\n");
        client.rest()
    });
    let options = ["--connections", "1", "--rate", "5", "--count", "2", "--reply", "any"];
    let ended = bench(&options, &unasked.address);
    assert_failed(&ended, 7, r#"unexpected line after 1 reply: "\x1b[2Jtwo""#);

    assert_failed(&bench(&[], "./nowhere/some.sock"), 3, "cannot connect to");
}

#[test]
fn other_connections_continue_after_one_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut clients: Vec<_> = (0..2).map(|_| Client::new(listener.accept().unwrap().0)).collect();
        let mut good = clients.pop().unwrap();
        let bad = thread::spawn(move || clients.iter_mut().for_each(|client| _ = client.line()));
        bad.join().unwrap();
        loop {
            match good.line() {
                end if end.is_empty() => break,
                line => good.write(line),
            }
        }
    });
    let (object, ended) = measured(&["--reply", "echo", "--connections", "2", "--count", "200"], &address);
    assert_eq!(object["replies"], 100);
    assert_eq!(object["replies_per_connection"], json!({ "min": 0, "median": 100, "max": 100 }));
    assert_eq!(object["missing"], 1);
    assert_failed(
        &ended,
        1,
        "the server closed the connection after 0 of 1 reply; 1 of 2 connections failed, 1 reply missing",
    );
    assert!(String::from_utf8_lossy(&ended.err).contains(object["failure"].as_str().unwrap()));
}

#[test]
fn unsent_lines_at_a_rate_cause_a_warning() {
    let (answer, to_answer) = channel::<()>();
    let server = Scripted::tcp(move |mut client| {
        loop {
            match client.line() {
                end if end.is_empty() => break,
                line => {
                    // The channel stays empty, so this pauses for 50 ms.
                    _ = to_answer.recv_timeout(Duration::from_millis(50));
                    client.write(line);
                }
            }
        }
    });
    let options = ["--reply", "echo", "--connections", "1", "--rate", "1000", "--duration", "300ms"];
    let (object, ended) = measured(&options, &server.address);
    drop(answer);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(number(&object["unsent"]) > 200.0, "{}", object["unsent"]);
    assert!(object["warnings"][0].as_str().unwrap().contains("lines due but not sent"), "{object}");
    let latency = &object["latency_ns"];
    assert!(number(&latency["corrected"]["max"]) > 1.5 * number(&latency["raw"]["p50"]), "{latency}");
}

#[test]
fn sigint_ends_it_early_with_a_report() {
    let server = Server::start();
    let mut process = Process::start(
        lineframe(["bench", "--warm-up", "0s", "--duration", "1h", "--timeout", NEVER]).arg(&server.tcp),
    );
    process.err.until("plan", |err| err.ends_with(b"1h, after 0s of warm-up\n"));
    drop(process.take_stdin());
    process.signal(Signal::INT);
    let ended = promptly(|| process.end());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.starts_with(b"\nreplies     "), "{ended:?}");
}

#[test]
fn open_file_limit_is_raised_or_warned_about() {
    let (_directory, address) = fast_echo();
    for (limit, connections) in [("ulimit -Sn 40", 100), ("ulimit -n 64", 40)] {
        let script = format!("{limit}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_lineframe"), "bench", "--json", "--reply", "echo"]);
        command.args(["--connections", "100", "--count", "1000", "--warm-up", "0s", &address]);
        let ended = Process::start(&mut command).end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let object: Value = serde_json::from_slice(&ended.out).unwrap();
        assert_eq!((&object["connections"], &object["replies"]), (&connections.into(), &1000.into()));
        let is_warned = String::from_utf8_lossy(&ended.err).contains("using 40 connections instead of 100: ");
        assert_eq!(is_warned, connections < 100, "{ended:?}");
    }
}

#[test]
fn invalid_options_are_rejected_before_connecting() {
    for options in [
        &["--length", "101", "--max-length", "100"][..],
        &["--delimiter", "byte:61"],
        &["--connections", "0"],
        &["--rate", "0"],
        &["--reply", "lower"],
    ] {
        let ended = bench(options, "127.0.0.1:1");
        assert_eq!(ended.code, Some(2), "{options:?}: {ended:?}");
    }
}

#[test]
fn a_reply_of_another_connection_is_noticed() {
    for (length, code) in [("8", 7), ("64", 7), ("7", 0)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let mut clients: Vec<_> = (0..2).map(|_| Client::new(listener.accept().unwrap().0)).collect();
            let lines: Vec<_> = clients.iter_mut().map(Client::line).collect();
            clients.iter().zip(lines.iter().rev()).for_each(|(client, line)| client.write(line));
            clients.iter_mut().for_each(Client::wait_for_end);
        });
        let options = ["--reply", "echo", "--connections", "2", "--count", "2", "--length", length];
        let ended = bench(&options, &address);
        assert_eq!(ended.code, Some(code), "{length}: {ended:?}");
    }
}

#[test]
fn a_reply_1024_lines_late_is_noticed() {
    let server = Scripted::tcp(|mut client| {
        let lines = client.lines(1024);
        client.write(lines.concat());
        client.line();
        client.write(&lines[0]);
        client.wait_for_end();
    });
    let options = ["--reply", "echo", "--connections", "1", "--window", "1024", "--count", "1025"];
    let ended = bench(&options, &server.address);
    assert_failed(
        &ended,
        7,
        "reply 1025 is not the line itself (--reply echo): got 64 bytes, expected 64; from byte 5 on",
    );
}

#[test]
fn numbered_lines_of_all_lengths_pass() {
    let server = Server::start();
    for length in ["7", "8", "9", "64", "1000", "64k"] {
        for options in [["--window", "1", "--connections", "3"], ["--window", "50", "--connections", "2"]] {
            let more = ["--count", "300", "--length", length];
            let (object, ended) = measured(&[&options[..], &more].concat(), &server.tcp);
            assert_eq!((ended.code, &object["replies"]), (Some(0), &300.into()), "{length}: {ended:?}");
        }
    }
}

#[test]
fn unwritable_svg_fails_before_the_run() {
    let ended = bench(&["--svg", "./none/a.svg"], "127.0.0.1:1");
    assert_failed(&ended, 1, "cannot write ./none/a.svg");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_does_not_lose_the_report() {
    let server = Server::start();
    let (object, ended) = measured(&["--svg", "/dev/full", "--count", "10"], &server.tcp);
    assert_failed(&ended, 1, "cannot write /dev/full");
    assert_eq!(object["replies"], 10);
}

#[test]
fn too_few_descriptors_are_a_clear_error() {
    let script = "ulimit -n 10; exec \"$0\" bench --count 1 ./none.sock";
    let ended =
        Process::start(Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_lineframe")])).end();
    assert_failed(&ended, 1, "Too many open files");
}

#[test]
fn stopping_bench_does_not_expire_its_timeout() {
    let (taken, is_taken) = channel::<()>();
    let (go_on, to_go_on) = channel::<()>();
    let server = Scripted::tcp(move |mut client| {
        let line = client.line();
        taken.send(()).unwrap();
        _ = to_go_on.recv();
        client.write(line);
        client.wait_for_end();
    });
    let options = ["--reply", "echo", "--connections", "1", "--count", "1", "--timeout", "3s"];
    let process = Process::start(lineframe(["bench", "--warm-up", "0s"]).args(options).arg(&server.address));
    is_taken.recv().unwrap();
    process.signal(Signal::STOP);
    go_on.send(()).unwrap();
    // The stopped process sleeps past its own 3 s timeout.
    thread::sleep(Duration::from_millis(3500));
    process.signal(Signal::CONT);
    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
