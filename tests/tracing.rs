//! What the server tells `tracing`.

use std::io;
use std::sync::{Arc, Mutex};

use lineframe::{Accepted, AnyIo, Connection, Listener, Peer, Server, reply};
use tokio::io::{AsyncWriteExt, duplex};
use tokio::sync::oneshot;
use tracing_subscriber::fmt::MakeWriter;

/// Everything that is told, as text.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<u8>>>);

impl io::Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Told {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Told {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt().with_writer(self.clone()).with_ansi(false).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn a_connection_is_a_span_and_its_end_an_event() {
    let told = Told::default();
    let _listening = told.listen();
    let (mut client, io) = duplex(1024);
    client.write_all(b"hello\nworld").await.unwrap();
    client.shutdown().await.unwrap();
    let within = reply(|line| {
        tracing::info!("within the handler");
        line.to_ascii_uppercase()
    });
    let peer = Peer::Tcp("192.0.2.1:5000".parse().unwrap());
    Server::new().serve_one(Accepted::new(AnyIo::new(io), peer), within).await;

    let lines = told.lines();
    assert!(
        lines[0].contains("connection{peer=192.0.2.1:5000}") && lines[0].contains("within the handler"),
        "{lines:?}"
    );
    let end = lines.last().unwrap();
    for part in ["connection ended", "peer=192.0.2.1:5000", "lines=1", "bad_lines=1", "lines_written=2"] {
        assert!(end.contains(part), "{part}: {lines:?}");
    }
    assert!(!lines.iter().any(|line| line.contains("hello") || line.contains("world")), "{lines:?}");
}

#[tokio::test]
async fn what_a_handler_failed_with_is_escaped() {
    let told = Told::default();
    let _listening = told.listen();
    let failing = async |mut conn: Connection| {
        let line = conn.next_line().await?.unwrap().unwrap();
        Err(io::Error::other(String::from_utf8_lossy(&line).into_owned()))
    };
    let (mut client, io) = duplex(1024);
    client.write_all(b"\x1b]0;x\x07\rnot raw\n").await.unwrap();
    client.shutdown().await.unwrap();
    Server::new().serve_one(Accepted::new(AnyIo::new(io), Peer::Other), failing).await;
    let told = told.lines().join("\n");
    assert!(told.contains("WARN") && told.contains("not raw"), "{told}");
    assert!(!told.contains(['\x1b', '\x07', '\r']), "{told:?}");
}

/// Fails over and over, and never again once told to stop.
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
async fn errors_of_accept_are_told_once_a_second() {
    let told = Told::default();
    let _listening = told.listen();
    let (failed, stop) = oneshot::channel();
    let listener = Failing { times: 20, failed: Some(failed) };
    let begun = tokio::time::Instant::now();
    let counters = Server::new().serve_with_shutdown(listener, reply(|line| line.to_vec()), stop).await;
    assert_eq!(counters.accept_errors, 20);
    let lines = told.lines();
    // 10 ms, doubling to a second: 20 attempts take 14 s or so.
    let seconds = begun.elapsed().as_secs();
    assert!((12..=16).contains(&seconds), "{seconds} s");
    // At once, then after 1.27 s, and each of the others a second after the one before.
    assert_eq!(lines.len(), 14, "{lines:#?}");
    assert!(lines[0].ends_with("unreported=0") && lines[1].ends_with("unreported=6"), "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("cannot accept") && line.contains("too many open files")));
}
