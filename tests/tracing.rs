//! The events and spans that a server reports to `tracing`.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lineframe::{Accepted, AnyIo, Connection, Delimiter, LineCodec, Listener, Peer, Server, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};
use tracing_subscriber::fmt::MakeWriter;

/// Captures all log output as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt().with_writer(self.clone()).with_ansi(false);
        let subscriber = subscriber.with_max_level(tracing::Level::DEBUG).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn connections_are_spans_and_log_their_end() {
    let log = Log::default();
    let _listening = log.listen();
    let (mut client, io) = duplex(1024);
    client.write_all(b"hello\nworld").await.unwrap();
    client.shutdown().await.unwrap();
    let within = reply(|line| {
        tracing::info!("within the handler");
        line.to_ascii_uppercase()
    });
    let peer = Peer::Tcp("192.0.2.1:5000".parse().unwrap());
    Server::new().serve_one(Accepted::new(AnyIo::new(io), peer), within).await;

    let lines = log.lines();
    assert!(lines[0].contains("connection began peer=192.0.2.1:5000"), "{lines:?}");
    assert!(
        lines[1].contains("connection{peer=192.0.2.1:5000}") && lines[1].contains("within the handler"),
        "{lines:?}"
    );
    let end = lines.last().unwrap();
    for part in ["connection ended", "peer=192.0.2.1:5000", "lines=1", "bad_lines=1", "lines_written=2"] {
        assert!(end.contains(part), "{part}: {lines:?}");
    }
    assert!(!lines.iter().any(|line| line.contains("hello") || line.contains("world")), "{lines:?}");
}

#[tokio::test]
async fn errors_of_handlers_are_escaped() {
    let log = Log::default();
    let _listening = log.listen();
    let failing = async |mut conn: Connection| {
        let line = conn.next_line().await?.unwrap().unwrap();
        Err(io::Error::other(String::from_utf8_lossy(&line).into_owned()))
    };
    let (mut client, io) = duplex(1024);
    client.write_all(b"\x1b]0;x\x07\rnot raw\n").await.unwrap();
    client.shutdown().await.unwrap();
    Server::new().serve_one(Accepted::new(AnyIo::new(io), Peer::Other), failing).await;
    let log = log.lines().join("\n");
    assert!(log.contains("WARN") && log.contains("not raw"), "{log}");
    assert!(!log.contains(['\x1b', '\x07', '\r']), "{log:?}");
}

const PEER: Peer =
    Peer::Tcp(std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 5000));

/// A listener for the connections that a test makes.
struct Queue(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for Queue {
    async fn accept(&mut self) -> io::Result<Accepted> {
        match self.0.recv().await {
            Some(io) => Ok(Accepted::new(AnyIo::new(io), PEER)),
            None => std::future::pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_fault_has_its_own_reason() {
    let server = || Server::builder().idle_timeout(Duration::from_secs(9)).max_bad_lines(0);
    let echo = reply(|line| line.to_vec());
    let failing = |kind: io::ErrorKind| {
        async move |mut conn: Connection| {
            conn.next_line().await?;
            Err(io::Error::from(kind))
        }
    };
    macro_rules! ended {
        ($server:expr, $input:expr, $handler:expr) => {{
            let log = Log::default();
            let _listening = log.listen();
            let (mut client, io) = duplex(1024);
            client.write_all($input).await.unwrap();
            $server.build().serve_one(Accepted::new(AnyIo::new(io), PEER), $handler).await;
            log.lines().pop().unwrap()
        }};
    }
    let nul = LineCodec::builder().delimiter(Delimiter::Byte(0)).build();
    let none = Server::builder().max_connections_per_ip(0);
    let ended = [
        ("per_ip_limit", ended!(none, b"a\n", echo.clone())),
        ("http_or_tls", ended!(server().refuse_http_and_tls(true), b"GET / HTTP/1.1\r\n", echo.clone())),
        ("idle_timeout", ended!(server(), b"a\n", echo.clone())),
        ("line_timeout detail=\"5 bytes without a newline\"", ended!(server(), b"a\nhello", echo.clone())),
        (
            "line_timeout detail=\"1 byte without a terminator\"",
            ended!(server().codec(nul), b"a", echo.clone()),
        ),
        ("too_many_bad_lines", {
            let crlf = LineCodec::builder().delimiter(Delimiter::CrLf).build();
            ended!(server().codec(crlf), b"a\nb\r\n", echo.clone())
        }),
        ("reset", ended!(server(), b"a\n", failing(io::ErrorKind::ConnectionReset))),
        ("handler", ended!(server(), b"a\n", failing(io::ErrorKind::NotFound))),
        ("panic", ended!(server(), b"a\n", async |_: Connection| panic!())),
    ];
    for (reason, ended) in ended {
        assert!(ended.contains("WARN") && ended.contains("connection ended"), "{ended}");
        assert!(
            ended.replace("reason=\"", "reason=").replacen('"', "", 1).contains(reason),
            "{reason}: {ended}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn unused_connections_end_at_debug() {
    let log = Log::default();
    let _listening = log.listen();
    let reset = async |_: Connection| Err(io::ErrorKind::ConnectionReset.into());
    let closed = async |mut conn: Connection| conn.next_line().await.map(drop).map_err(io::Error::from);
    let gone = || {
        let (_, io) = duplex(1);
        Accepted::new(AnyIo::new(io), PEER)
    };
    Server::new().serve_one(gone(), closed).await;
    Server::new().serve_one(gone(), reset).await;
    let ends: Vec<_> = log.lines().into_iter().filter(|line| line.contains("connection ended")).collect();
    assert!(ends.len() == 2 && ends.iter().all(|line| line.contains("DEBUG")), "{ends:#?}");
}

#[tokio::test(start_paused = true)]
async fn full_server_and_aborts_are_logged() {
    let log = Log::default();
    let _listening = log.listen();
    let (connect, incoming) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::builder().max_connections(1).drain_timeout(Duration::ZERO).build();
    let ignores_the_drain = async |mut conn: Connection| {
        conn.send_line("hi").await?;
        std::future::pending().await
    };
    let serving = tokio::spawn(server.serve_with_shutdown(Queue(incoming), ignores_the_drain, stopped));
    assert!(!log.lines().join("").contains("max_connections"));
    let (mut client, io) = duplex(64);
    connect.send(io).unwrap();
    client.read_u8().await.unwrap();
    tokio::task::yield_now().await;
    let waits: Vec<_> = log.lines().into_iter().filter(|line| line.contains("max_connections=1")).collect();
    assert!(waits.len() == 1 && waits[0].contains("WARN"), "{waits:#?}");
    stop.send(()).unwrap();
    assert_eq!(serving.await.unwrap().aborted, 1);
    let end = log.lines().pop().unwrap();
    assert!(end.contains("WARN") && end.contains("lines_written=1") && end.contains("aborted"), "{end}");
}

/// Returns the number of further events that a log line stands for.
fn suppressed(line: &str) -> u64 {
    line.rsplit_once("suppressed=").map_or(0, |(_, count)| count.parse().unwrap())
}

/// A listener that fails `times` times, then signals and stays pending.
struct Failing {
    times: u32,
    failed: Option<oneshot::Sender<()>>,
}

impl Listener for Failing {
    async fn accept(&mut self) -> io::Result<Accepted> {
        if self.times == 0 {
            if let Some(failed) = self.failed.take() {
                failed.send(()).unwrap();
            }
            return std::future::pending().await;
        }
        self.times -= 1;
        Err(io::Error::other("too many open files"))
    }
}

#[tokio::test(start_paused = true)]
async fn accept_errors_are_logged_once_per_second() {
    let log = Log::default();
    let _listening = log.listen();
    let (failed, stop) = oneshot::channel();
    let listener = Failing { times: 20, failed: Some(failed) };
    let begun = tokio::time::Instant::now();
    let counters = Server::new().serve_with_shutdown(listener, reply(|line| line.to_vec()), stop).await;
    assert_eq!(counters.accept_errors, 20);
    let lines = log.lines();
    // The pauses double from 10 ms to 1 s, so 20 attempts take about 14 s.
    let seconds = begun.elapsed().as_secs();
    assert!((12..=16).contains(&seconds), "{seconds} s");
    // The first error is logged immediately, the second after 1.27 s, and each later one 1 s after
    // the previous.
    assert_eq!(lines.len(), 14, "{lines:#?}");
    assert!(lines[0].ends_with("suppressed=0") && lines[1].ends_with("suppressed=6"), "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("cannot accept") && line.contains("too many open files")));
    assert_eq!(lines.iter().map(|line| 1 + suppressed(line)).sum::<u64>(), 20);
}
