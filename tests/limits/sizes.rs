use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use lineframe::{Connection, Delimiter, LineCodec, Server, ServerBuilder, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use crate::served::{Address, Buffers, Running, in_memory, line, rest, soon, tcp, unix, upper};

/// Serves TCP with a handler that answers in upper case.
fn uppers(builder: ServerBuilder) -> (Address, Running) {
    let (address, listener) = tcp(Buffers::Usual);
    (address, Running::start(builder, listener, reply(upper)))
}

/// Sends `sent` and half-closes. Returns the replies.
async fn answer(address: &Address, sent: &[u8]) -> String {
    let mut peer = address.connect().await.unwrap();
    peer.write_all(sent).await.unwrap();
    peer.shutdown().await.unwrap();
    soon(rest(&mut peer)).await
}

/// Returns `true` if the server answers a line.
async fn is_served(peer: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> bool {
    peer.write_all(b"test\n").await.is_ok() && soon(line(peer)).await == "TEST\n"
}

#[tokio::test]
pub(crate) async fn max_length() {
    let ends = [(Delimiter::Newline, "\n"), (Delimiter::Newline, "\r\n"), (Delimiter::CrLf, "\r\n")];
    for (delimiter, end) in ends {
        for n in [0, 1, 80, 65_536] {
            let codec = LineCodec::builder().delimiter(delimiter.clone()).max_length(n);
            let (address, running) =
                uppers(Server::builder().codec(codec.max_encoded_length(70_000).build()));
            let written = if delimiter == Delimiter::CrLf { "\r\n" } else { "\n" };
            for length in [n.saturating_sub(1), n] {
                let sent = "x".repeat(length) + end;
                assert_eq!(
                    answer(&address, sent.as_bytes()).await,
                    "X".repeat(length) + written,
                    "{length} of {n}"
                );
            }
            let sent = "x".repeat(n + 1) + end + end;
            let s = if n == 1 { "" } else { "s" };
            let error =
                format!("error: line exceeds the limit of {n} byte{s} (max_length){written}{written}");
            assert_eq!(answer(&address, sent.as_bytes()).await, error, "over {n}");
            soon(running.stopped()).await;
        }
    }
}

#[tokio::test]
pub(crate) async fn max_length_of_replies() {
    let codec = LineCodec::builder().max_length(1000).max_encoded_length(200).build();
    let (address, running) = uppers(Server::builder().codec(codec));
    for length in [199, 200] {
        let sent = "x".repeat(length) + "\n";
        assert_eq!(answer(&address, sent.as_bytes()).await, sent.to_ascii_uppercase());
    }
    let got = answer(&address, ("x".repeat(201) + "\na\n").as_bytes()).await;
    assert!(got.starts_with("error: ") && got.ends_with(" 200 bytes (max_encoded_length)\nA\n"), "{got:?}");
    assert_eq!(soon(running.stopped()).await.failed, 0);
}

#[tokio::test]
pub(crate) async fn max_connections() {
    let (address, running) = uppers(Server::builder().max_connections(3));
    let mut peers = Vec::new();
    for _ in 0..3 {
        let mut peer = address.connect().await.unwrap();
        assert!(is_served(&mut peer).await);
        peers.push(peer);
    }
    // The fourth connection waits in the accept queue, even if the others are active.
    let mut waiting = address.connect().await.unwrap();
    waiting.write_all(b"a\n").await.unwrap();
    for _ in 0..100 {
        assert!(is_served(&mut peers[2]).await);
    }
    assert_eq!(running.server.counters().accepted, 3);
    drop(peers.pop());
    assert_eq!(soon(line(&mut waiting)).await, "A\n");
    drop((peers, waiting));
    let counters = soon(running.stopped()).await;
    assert_eq!((counters.accepted, counters.refused, counters.accept_errors), (4, 0, 0));
}

#[tokio::test]
pub(crate) async fn on_error() {
    let (report, mut reported) = unbounded_channel();
    let on_error = move |peer, error: &io::Error| report.send((peer, error.to_string())).unwrap();
    let (address, listener) = tcp(Buffers::Usual);
    let handler = async |mut conn: Connection| match conn.next_line().await? {
        Some(Ok(line)) if line == "fail" => Err(io::Error::other("as asked")),
        _ => Ok(()),
    };
    let running = Running::start(Server::builder().on_error(on_error), listener, handler);
    for line in ["good\n", "fail\n"] {
        let mut peer = address.connect().await.unwrap();
        peer.write_all(line.as_bytes()).await.unwrap();
        assert_eq!(soon(rest(&mut peer)).await, "");
    }
    let (peer, error) = soon(reported.recv()).await.unwrap();
    assert_eq!((peer.ip(), error), (Some(Ipv4Addr::LOCALHOST.into()), "as asked".to_string()));
    assert_eq!(soon(running.stopped()).await.failed, 1);
    assert!(reported.recv().await.is_none(), "a handler that returns Ok is not reported");
}

#[tokio::test]
pub(crate) async fn max_connections_of_all_listeners() {
    let server = Server::builder().max_connections(2).build();
    let (tcp_address, tcp) = tcp(Buffers::Usual);
    let (unix_address, unix) = unix(Buffers::Usual);
    for listener in [tcp, unix] {
        tokio::spawn(server.serve(listener, reply(upper)));
    }
    let mut peers = [tcp_address.connect().await.unwrap(), unix_address.connect().await.unwrap()];
    for peer in &mut peers {
        assert!(is_served(peer).await);
    }
    let [one, mut other] = peers;
    let mut waiting = tcp_address.connect().await.unwrap();
    waiting.write_all(b"a\n").await.unwrap();
    for _ in 0..100 {
        assert!(is_served(&mut other).await);
    }
    assert_eq!(server.counters().accepted, 2);
    drop(one);
    assert_eq!(soon(line(&mut waiting)).await, "A\n");
}

/// An idle listener does not occupy a slot that another listener could use.
#[tokio::test]
pub(crate) async fn max_connections_of_an_idle_listener() {
    let server = Server::builder().max_connections(1).build();
    let (tcp_address, tcp) = tcp(Buffers::Usual);
    let (unix_address, unix) = unix(Buffers::Usual);
    for listener in [tcp, unix] {
        tokio::spawn(server.serve(listener, reply(upper)));
    }
    for address in [&tcp_address, &tcp_address, &unix_address, &unix_address, &tcp_address] {
        let mut peer = address.connect().await.unwrap();
        assert!(is_served(&mut peer).await);
    }
}

#[tokio::test]
pub(crate) async fn max_connections_per_ip() {
    let (address, running) = uppers(Server::builder().max_connections_per_ip(2));
    let mut one = address.connect().await.unwrap();
    let mut two = address.connect().await.unwrap();
    assert!(is_served(&mut one).await && is_served(&mut two).await);
    let mut three = address.connect().await.unwrap();
    assert_eq!(soon(rest(&mut three)).await, "");
    assert_eq!(running.server.counters().refused, 1);
    #[cfg(target_os = "linux")]
    {
        let mut elsewhere = crate::served::connect_from(Ipv4Addr::new(127, 0, 0, 2), &address).await.unwrap();
        assert!(is_served(&mut elsewhere).await);
    }
    // The slot is free only after the server has finished with the connection.
    drop(one);
    soon(async { while !is_served_or_refused(&address).await {} }).await;
    drop((two, three));
    soon(running.stopped()).await;
}

async fn is_served_or_refused(address: &Address) -> bool {
    let mut peer = address.connect().await.unwrap();
    _ = peer.write_all(b"a\n").await;
    let mut got = [0; 2];
    soon(peer.read(&mut got)).await.is_ok_and(|count| count > 0)
}

/// Sends `bad` bad lines and then a good one, either in one write or each after the reply to the
/// one before. Returns the replies and the number of failed sessions.
async fn after_bad_lines<H, Fut>(limit: u64, bad: usize, in_one_write: bool, handler: H) -> (String, u64)
where
    H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    let codec = LineCodec::builder().max_length(2).max_encoded_length(100).build();
    let (address, listener) = tcp(Buffers::Usual);
    let running = Running::start(Server::builder().codec(codec).max_bad_lines(limit), listener, handler);
    let mut peer = address.connect().await.unwrap();
    let mut got = String::new();
    if in_one_write {
        peer.write_all(&[&b"bad\n".repeat(bad)[..], b"ok\n"].concat()).await.unwrap();
    } else {
        for _ in 0..bad {
            peer.write_all(b"bad\n").await.unwrap();
            got += &soon(line(&mut peer)).await;
        }
        _ = peer.write_all(b"ok\n").await;
    }
    _ = peer.shutdown().await;
    got += &soon(rest(&mut peer)).await;
    let counters = soon(running.stopped()).await;
    assert_eq!(counters.bad_lines, counters.lines_written - counters.lines);
    (got, counters.failed)
}

async fn by_line(mut conn: Connection) -> io::Result<()> {
    while let Some(line) = conn.next_line().await? {
        match line {
            Ok(line) => conn.write_line(upper(&line)).await?,
            Err(bad) => conn.write_line(bad.reply()).await?,
        }
    }
    Ok(())
}

async fn max_bad_lines_are_answered<H, Fut>(in_one_write: bool, handler: H)
where
    H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    let error = "error: line exceeds the limit of 2 bytes (max_length)\n";
    for bad in [99, 100] {
        let (got, failed) = after_bad_lines(100, bad, in_one_write, handler.clone()).await;
        assert!(got == error.repeat(bad) + "OK\n", "{} lines for {bad}", got.lines().count());
        assert_eq!(failed, 0);
    }
    // The 101st bad line is answered, then the server closes the connection.
    for bad in [101, 150, 5000] {
        if bad == 101 || in_one_write {
            let (got, failed) = after_bad_lines(100, bad, in_one_write, handler.clone()).await;
            assert!(got == error.repeat(101), "{} lines for {bad}", got.lines().count());
            assert_eq!(failed, 1);
        }
    }
    let (got, failed) = after_bad_lines(0, 1, in_one_write, handler).await;
    assert_eq!((&got[..], failed), (error, 1));
}

#[tokio::test]
pub(crate) async fn max_bad_lines_sent_one_by_one() {
    max_bad_lines_are_answered(false, by_line).await;
    max_bad_lines_are_answered(false, reply(upper)).await;
}

#[tokio::test]
pub(crate) async fn max_bad_lines_in_one_write() {
    max_bad_lines_are_answered(true, by_line).await;
}

#[tokio::test]
pub(crate) async fn max_bad_lines_in_one_write_with_reply() {
    max_bad_lines_are_answered(true, reply(upper)).await;
}

/// Returns `true` if there is no event for an hour of paused time.
async fn nothing<T>(events: &mut UnboundedReceiver<T>) -> bool {
    timeout(Duration::from_secs(3600), events.recv()).await.is_err()
}

fn no_deadlines() -> ServerBuilder {
    Server::builder().idle_timeout(None).line_timeout(None).write_timeout(None)
}

#[tokio::test(start_paused = true)]
pub(crate) async fn max_unsent_blocks_writing() {
    for (unsent, waits) in [(99, false), (100, false), (101, true)] {
        let (written, mut events) = unbounded_channel();
        let handler = async move |mut conn: Connection| {
            // Fills the stream.
            conn.write_bytes([b'-'; 10]).await?;
            conn.flush().await?;
            conn.write_bytes(vec![b'-'; unsent]).await?;
            written.send("within").unwrap();
            conn.write_line("").await?;
            written.send("over").unwrap();
            Ok(())
        };
        let (dialer, listener) = in_memory();
        let _running = Running::start(no_deadlines().max_unsent(100), listener, handler);
        let mut peer = dialer.connect(10);
        assert_eq!(events.recv().await, Some("within"));
        assert_eq!(nothing(&mut events).await, waits, "{unsent}");
        if waits {
            peer.read_exact(&mut [0]).await.unwrap();
            assert_eq!(events.recv().await, Some("over"));
        }
    }
}

#[tokio::test(start_paused = true)]
pub(crate) async fn max_unsent_blocks_reading() {
    for (unsent, waits) in [(99, false), (100, false), (101, true)] {
        let (read, mut events) = unbounded_channel();
        let handler = async move |mut conn: Connection| {
            conn.write_bytes([b'-'; 10]).await?;
            conn.flush().await?;
            conn.write_bytes(vec![b'-'; unsent]).await?;
            conn.next_line().await?;
            read.send(()).unwrap();
            Ok(())
        };
        let (dialer, listener) = in_memory();
        let _running = Running::start(no_deadlines().max_unsent(100), listener, handler);
        let mut peer = dialer.connect(10);
        peer.write_all(b"a\n").await.unwrap();
        assert_eq!(nothing(&mut events).await, waits, "{unsent}");
        if waits {
            peer.read_exact(&mut [0]).await.unwrap();
            assert_eq!(events.recv().await, Some(()));
        }
    }
}

#[tokio::test]
pub(crate) async fn tcp_nodelay() {
    for yes in [true, false] {
        let handler = async move |mut conn: Connection| {
            let nodelay = conn.io().downcast_ref::<TcpStream>().expect("a TCP stream").nodelay()?;
            conn.write_line(nodelay.to_string()).await?;
            Ok(())
        };
        let (address, listener) = tcp(Buffers::Usual);
        let _running = Running::start(Server::builder().tcp_nodelay(yes), listener, handler);
        assert_eq!(answer(&address, b"").await, format!("{yes}\n"));
    }
}

#[tokio::test]
pub(crate) async fn refuse_http_and_tls() {
    for (yes, answered) in [(true, "error: HTTP is not supported\n"), (false, "GET / HTTP/1.1\nA\n")] {
        let (address, _running) = uppers(Server::builder().refuse_http_and_tls(yes));
        assert_eq!(answer(&address, b"GET / HTTP/1.1\r\na\n").await, answered);
    }
}
