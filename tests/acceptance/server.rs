use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// Serves lines with `answer`. Prints the address once, and the counters for each line on standard
/// input. Shuts the server down when standard input ends.
pub(crate) async fn serve(
    server: lineframe::Server,
    answer: impl FnMut(&[u8]) -> Vec<u8> + Clone + Send + Sync + 'static,
) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let asked = server.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        for _ in io::stdin().lines() {
            println!("{:?}", asked.counters());
        }
        drop(stop);
    });
    server.serve_with_shutdown(listener, lineframe::reply(answer), stopped).await;
    Ok(())
}

/// A server in its own process, which is killed on drop.
pub(crate) struct Server {
    address: String,
    process: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

/// The printed `Debug` output of a server's counters.
pub(crate) struct Counters(String);

impl Server {
    /// Runs `script` in a shell whose `$0` is the path of this program.
    pub(crate) fn start(script: &str) -> io::Result<Self> {
        let mut process = Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        let mut stdout = BufReader::new(stdout);
        let mut address = String::new();
        stdout.read_line(&mut address)?;
        Ok(Self { address: address.trim().to_owned(), process, pipes: Mutex::new((stdin, stdout)) })
    }

    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        let peer = TcpStream::connect(&self.address).await?;
        peer.set_nodelay(true)?;
        Ok(peer)
    }

    pub(crate) fn counters(&self) -> io::Result<Counters> {
        let (stdin, stdout) = &mut *self.pipes.lock().map_err(|_| io::Error::other("poisoned"))?;
        stdin.write_all(b"\n")?;
        let mut said = String::new();
        stdout.read_line(&mut said)?;
        Ok(Counters(said))
    }

    /// Returns the resident memory of the server in bytes.
    pub(crate) fn memory(&self) -> io::Result<f64> {
        let rollup = self.proc("smaps_rollup")?;
        let rss = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
        let kib = rss.and_then(|rss| rss.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kib.map(|kib| kib * 1024.0).ok_or(io::ErrorKind::InvalidData.into())
    }

    /// Returns the number of open descriptors of the server.
    pub(crate) fn descriptors(&self) -> io::Result<usize> {
        Ok(fs::read_dir(self.proc_path("fd"))?.count())
    }

    /// Returns the CPU time that the server has used.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let stat = self.proc("stat")?;
        // The split starts after the program name, so index 0 is field 3. Fields 14 and 15 are user
        // and system time in ticks, 100 per second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
        Ok(Duration::from_millis(10 * (ticks(11) + ticks(12))))
    }

    fn proc(&self, name: &str) -> io::Result<String> {
        fs::read_to_string(self.proc_path(name))
    }

    /// Returns the path of `name` in the server's `/proc` directory.
    pub(crate) fn proc_path(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.process.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

impl Counters {
    pub(crate) fn count(&self, name: &str) -> f64 {
        let count = self.0.split(&format!("{name}: ")).nth(1).unwrap_or_default();
        count
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .and_then(|count| count.parse().ok())
            .unwrap_or(f64::NAN)
    }
}
