use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// Answers each line with what `answer` makes of it. Says where it is, and its counters whenever it is asked for them.
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

/// The server, in a process of its own, which ends with this.
pub(crate) struct Server {
    address: String,
    process: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

/// What it says when it is asked for its counters.
pub(crate) struct Counters(String);

impl Server {
    /// Runs `script` in a shell, whose `$0` is this program.
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

    /// Its resident memory, in bytes.
    pub(crate) fn memory(&self) -> io::Result<f64> {
        let rollup = self.proc("smaps_rollup")?;
        let rss = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
        let kib = rss.and_then(|rss| rss.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kib.map(|kib| kib * 1024.0).ok_or(io::ErrorKind::InvalidData.into())
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> io::Result<usize> {
        Ok(fs::read_dir(self.proc_path("fd"))?.count())
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let stat = self.proc("stat")?;
        // Behind the program's name, in parentheses, from field 3 on: 14 and 15 are its ticks, 100 a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
        Ok(Duration::from_millis(10 * (ticks(11) + ticks(12))))
    }

    fn proc(&self, name: &str) -> io::Result<String> {
        fs::read_to_string(self.proc_path(name))
    }

    /// What the system says of its process under `name`.
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
