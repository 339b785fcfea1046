use std::io::ErrorKind;
use std::process::{Command, Stdio};

use crate::support::{Ended, Process, Server};

const LINES: &str = "hello\nhéllo 世界\n\nlast\n";
const REPLIES: &str = "HELLO\nHéLLO 世界\n\nLAST\n";

/// Returns the output of `command flag`, or `None` if the command is not installed.
fn help(command: &str, flag: &str) -> Option<String> {
    match Command::new(command).arg(flag).stdin(Stdio::null()).output() {
        Ok(output) => Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{command}: {error}"),
    }
}

fn assert_answered(mut client: Process) {
    client.feed(LINES);
    assert_eq!(client.end(), Ended::success(REPLIES));
}

#[test]
fn nc_is_answered() {
    match help("nc", "-h") {
        // Other versions use another option to half-close.
        Some(help) if help.contains("OpenBSD") => {}
        Some(_) => return println!("skipped: nc is not OpenBSD's"),
        None => return println!("skipped: no nc"),
    }
    let server = Server::start();
    let (host, port) = server.tcp.split_once(':').unwrap();
    assert_answered(Process::start(Command::new("nc").args(["-N", host, port])));
    assert_answered(Process::start(Command::new("nc").args(["-N", "-U"]).arg(server.path())));
}

/// Sends half of the lines one by one, waiting for each reply, and pipelines the others.
const ASYNCIO: &str = "
import asyncio, sys

async def talk(connecting):
    reader, writer = await connecting
    lines = [b'line %d \\xe4\\xb8\\x96\\xff' % n for n in range(1000)]
    for line in lines[:500]:
        writer.write(line + b'\\n')
        assert await reader.readline() == line.upper() + b'\\n', line
    writer.write(b''.join(line + b'\\r\\n' for line in lines[500:]))
    writer.write_eof()
    assert await reader.read() == b''.join(line.upper() + b'\\n' for line in lines[500:])
    writer.close()

async def main(host, port, path):
    await talk(asyncio.open_connection(host, port))
    await talk(asyncio.open_unix_connection(path))
    print('answered')

asyncio.run(main(*sys.argv[1:]))
";

#[test]
fn python_asyncio_is_answered() {
    if help("python3", "--version").is_none() {
        return println!("skipped: no python3");
    }
    let server = Server::start();
    let (host, port) = server.tcp.split_once(':').unwrap();
    let client = Process::start(Command::new("python3").args(["-c", ASYNCIO, host, port]).arg(server.path()));
    assert_eq!(client.end(), Ended::success("answered\n"));
}
