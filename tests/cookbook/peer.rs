//! Programs that the tests talk to. Each is killed when its test ends.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tokio::time::timeout;

use crate::example;

/// A running server on its own port.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: String,
}

impl Running {
    /// Starts an example that prints `listening ADDRESS`.
    pub(crate) fn example(name: &str, arguments: &[&OsStr]) -> Self {
        let mut command = Command::new(example::path(name));
        let mut child =
            command.arg("127.0.0.1:0").args(arguments).stdout(Stdio::piped()).spawn().expect("an example");
        let line = first_line_with("listening ", child.stdout.take().unwrap()).expect("its address");
        Self { address: line["listening ".len()..].into(), child }
    }

    /// Starts a server with `arguments(port)` and waits until it prints `ready`. Returns `None` if
    /// it is not installed.
    pub(crate) fn server(name: &str, ready: &str, arguments: impl Fn(u16) -> Vec<String>) -> Option<Self> {
        // Another program may take the port first. The server then exits, and the loop tries
        // another port.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let (reader, writer) = UnixStream::pair().unwrap();
            let [stdout, stderr] = [writer.try_clone().unwrap(), writer].map(OwnedFd::from);
            let mut command = Command::new(name);
            command.args(arguments(port)).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
            let child = match command.spawn() {
                Ok(child) => child,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return missing(name),
                Err(error) => panic!("{name}: {error}"),
            };
            drop(command); // closes this process's copies of the pipe
            let running = Self { child, address: format!("127.0.0.1:{port}") };
            if first_line_with(ready, reader).is_some() {
                return Some(running);
            }
        }
        panic!("{name} does not start");
    }

    pub(crate) fn port(&self) -> &str {
        self.address.rsplit_once(':').unwrap().1
    }

    pub(crate) fn talk(&self) -> Talk {
        Talk::to(&self.address)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Returns the first line that contains `text`. A thread then discards further output, so that the
/// program never blocks on a full pipe.
fn first_line_with(text: &str, output: impl Read + Send + 'static) -> Option<String> {
    let mut output = BufReader::new(output);
    let line = output.by_ref().lines().map_while(Result::ok).find(|line| line.contains(text))?;
    thread::spawn(move || io::copy(&mut output, &mut io::sink()));
    Some(line)
}

/// Reports a skipped test directly to stderr, because the test harness hides the output of passing
/// tests.
pub(crate) fn missing<T>(what: &str) -> Option<T> {
    let is_required = std::env::var_os("LINEFRAME_PEERS").is_some_and(|peers| peers == "required");
    assert!(!is_required, "{what} is not installed: tests/peers/install");
    _ = writeln!(io::stderr(), "skipped: no {what} on this machine (tests/peers/install)");
    None
}

/// Returns a Python that has the module: the one of `tests/peers/install`, or the system's.
pub(crate) fn python(module: &str) -> Option<Command> {
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let pythons = [target.join("peers/bin/python"), PathBuf::from("python3")];
    // `find_spec` does not import the module, which can take seconds.
    let asks = format!("import importlib.util, sys; sys.exit(importlib.util.find_spec('{module}') is None)");
    let has = |python: &&PathBuf| {
        let asked = Command::new(python).args(["-c", &asks]).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    pythons
        .iter()
        .find(has)
        .map(Command::new)
        .or_else(|| missing(&format!("Python with its module {module}")))
}

/// Starts a server that sends `reply` to its first client, then the end of the stream. Returns its
/// address.
pub(crate) fn answering(reply: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut client, _) = listener.accept()?;
        client.write_all(reply.as_bytes())?;
        client.shutdown(Shutdown::Write)?;
        io::copy(&mut client, &mut io::sink())
    });
    address
}

/// Returns the path of a script in this directory.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cookbook").join(name)
}

/// Runs a program with `input` on its stdin and returns its stdout. Returns `None` if it is not
/// installed. Panics if it fails.
pub(crate) fn output(command: &mut Command, input: &[u8]) -> Option<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return missing(&name),
        Err(error) => panic!("{name}: {error}"),
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let fed = thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{name}: {printed}{}", String::from_utf8_lossy(&output.stderr));
    fed.join().unwrap().unwrap_or_else(|error| panic!("{name} has not read its input: {error}"));
    Some(printed)
}

/// The limit for every wait. A missing reply is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for the reply. Panics after `PATIENCE`.
pub(crate) async fn within<F: Future>(answer: F) -> F::Output {
    timeout(PATIENCE, answer).await.expect("an answer")
}

/// Runs an example as a client of `server` and returns its stdout.
pub(crate) fn client(example: &str, server: &Running, arguments: &[&str]) -> String {
    output(Command::new(example::path(example)).arg(&server.address).args(arguments), b"").unwrap()
}

/// A client that sends exactly the given bytes.
pub(crate) struct Talk(BufReader<TcpStream>);

impl Talk {
    pub(crate) fn to(address: &str) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Returns the next line without its terminator.
    pub(crate) fn line(&mut self) -> String {
        self.try_line().expect("a line before the end of the stream")
    }

    /// Like `line`, and returns `None` at the end of the stream or after a reset.
    pub(crate) fn try_line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(_) if line.ends_with('\n') => Some(line.trim_end().into()),
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no line: {error}"),
        }
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.line()
    }

    pub(crate) fn end(&mut self) {
        self.0.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    /// Returns everything up to the end of the stream.
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // A reset also ends the stream.
        _ = self.0.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    }
}
