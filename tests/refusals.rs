//! Refused input: the error replies, and the commands that must not run.
#![cfg(unix)]

mod served;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use lineframe::{AnyIo, Connection, Delimiter, Error, LineCodec, Server, reply};
use served::{Buffers, Running, in_memory, line, rest, soon, tcp, upper};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Sends `sent` over TCP, half-closes, and returns everything that the server sends.
async fn said(server: &(served::Address, Running), sent: &[u8]) -> Vec<u8> {
    let peer = server.0.connect().await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(peer);
    let write = async {
        writer.write_all(sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut said = Vec::new();
    let ((), read) = soon(async { tokio::join!(write, reader.read_to_end(&mut said)) }).await;
    read.expect("no reset");
    said
}

#[tokio::test]
async fn unframeable_replies_become_error_lines() {
    // With the higher limit, replies that are sent together are also checked together.
    for limit in [200, 300] {
        let (address, listener) = tcp(Buffers::Usual);
        let codec = LineCodec::builder().max_encoded_length(limit).build();
        let running = Running::start(Server::builder().codec(codec), listener, reply(upper));
        let mut peer = address.connect().await.unwrap();
        for (sent, expected) in [
            ("a\r\r\n".to_owned(), "error: reply refused: ".to_owned()),
            ("b\n".to_owned(), "B\n".to_owned()),
            ("x".repeat(limit + 1) + "\n", format!("error: reply refused: line of {} bytes ", limit + 1)),
            ("c\n".to_owned(), "C\n".to_owned()),
        ] {
            peer.write_all(sent.as_bytes()).await.unwrap();
            let got = soon(line(&mut peer)).await;
            assert!(got.starts_with(&expected), "{got:?}");
        }
        drop(peer);
        assert_eq!(soon(running.stopped()).await.failed, 0);
    }
}

/// A client that pairs replies with lines would take the next line's reply for this one's.
#[tokio::test]
async fn unwritable_error_line_ends_the_session() {
    let codec = LineCodec::builder().max_encoded_length(5).build();
    let (address, listener) = tcp(Buffers::Usual);
    let server = (address, Running::start(Server::builder().codec(codec), listener, reply(upper)));
    assert_eq!(said(&server, b"fits\nlonger\nnext\n").await, b"FITS\n");
    assert_eq!(soon(server.1.stopped()).await.failed, 1);
}

/// A line end from the peer inside an error line would split it into two lines.
#[tokio::test]
async fn error_replies_are_single_printable_ascii_lines() {
    let ends = [
        (Delimiter::Newline, &b"\n"[..]),
        (Delimiter::Lf, b"\n"),
        (Delimiter::CrLf, b"\r\n"),
        (Delimiter::Byte(0), b"\0"),
    ];
    for (delimiter, end) in ends {
        let codec = LineCodec::builder().delimiter(delimiter.clone()).max_length(8).max_encoded_length(200);
        let builder = Server::builder().codec(codec.build()).max_bad_lines(None);
        let (address, listener) = tcp(Buffers::Usual);
        let server = (address, Running::start(builder, listener, reply(|line| line.len().to_string())));
        let mut sent = Vec::new();
        let mut one_by_one = Vec::new();
        for byte in 0..=255 {
            for content in [&[byte][..], &[byte, b'\r'], &[b'\r', byte], &[byte, b'\n'], &[b'\n', byte]] {
                for length in [2, 9] {
                    let line = [&b"AAAAAAAAA"[..length], content, end].concat();
                    sent.extend_from_slice(&line);
                    sent.extend_from_slice(b"AAAAAAAAA");
                    sent.extend_from_slice(content);
                    sent.extend_from_slice(end);
                }
            }
            one_by_one.push([&[byte; 7][..], b"cut"].concat());
        }
        one_by_one.push(sent);
        for sent in one_by_one {
            let said = String::from_utf8(said(&server, &sent).await).unwrap();
            let lines: Vec<&str> = said.split_terminator(std::str::from_utf8(end).unwrap()).collect();
            for line in &lines {
                let is_length = line.parse::<usize>().is_ok();
                let is_error = line.starts_with("error: ") && line.len() < 200;
                let is_printable = line.bytes().all(|byte| matches!(byte, b' '..=b'~'));
                assert!((is_length || is_error) && is_printable, "{line:?} for {delimiter:?}");
            }
            assert!(lines.iter().any(|line| line.starts_with("error: ")));
        }
        let counters = soon(server.1.stopped()).await;
        assert_eq!((counters.failed, counters.accepted), (0, 257));
        assert_eq!(counters.lines + counters.bad_lines, counters.lines_written);
    }
}

/// Sends `sent` in reads of `read_size` bytes to a guarded server. Returns the replies and the
/// number of lines that the handler saw, and checks that they are the same with a `reply`
/// handler.
async fn guarded(codec: LineCodec, sent: &[u8], read_size: usize) -> (String, usize) {
    let seen = Arc::new(AtomicUsize::new(0));
    let [first, second] = [Arc::clone(&seen), Arc::clone(&seen)];
    let handler = async move |mut conn: Connection| {
        while let Some(line) = conn.next_line().await? {
            first.fetch_add(1, SeqCst);
            conn.write_line(line.map_or_else(|bad| bad.reply().into(), |line| line.to_vec())).await?;
        }
        Ok(())
    };
    let said = said_under_guard(codec.clone(), sent, read_size, handler).await;
    let lines = seen.swap(0, SeqCst);
    let replying = reply(move |line| {
        second.fetch_add(1, SeqCst);
        line.to_vec()
    });
    assert_eq!(said_under_guard(codec, sent, read_size, replying).await, said);
    assert_eq!(seen.load(SeqCst), lines);
    (said, lines)
}

async fn said_under_guard<H, Fut>(codec: LineCodec, sent: &[u8], read_size: usize, handler: H) -> String
where
    H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    let (dialer, listener) = in_memory();
    let builder = Server::builder().codec(codec).refuse_http_and_tls(true);
    let running = Running::start(builder, listener, handler);
    let (mut reader, mut writer) = tokio::io::split(dialer.connect(read_size));
    let write = async {
        // After a refusal the server reads input only for a limited time.
        _ = writer.write_all(sent).await;
        _ = writer.shutdown().await;
    };
    let ((), said) = tokio::join!(write, rest(&mut reader));
    drop((reader, writer));
    let refused = running.stopped().await.refused;
    assert_eq!(refused, u64::from(said.contains("is not supported")), "{said}");
    said
}

const COMMANDS: &str = "\r\nHost: x\r\nContent-Length: 9\r\n\r\nshutdown\nshutdown\n";

#[tokio::test(start_paused = true)]
async fn http_requests_run_no_commands_however_cut() {
    for request in ["POST / HTTP/1.1", "GET /?a=b;c HTTP/1.0", "PRI * HTTP/2.0", "CONNECT x:1 HTTP/1.1"] {
        let sent = format!("{request}{COMMANDS}");
        for read_size in (1..=sent.len() + 1).chain([1 << 16]) {
            let (said, seen) = guarded(LineCodec::new(), sent.as_bytes(), read_size).await;
            assert_eq!((&said[..], seen), ("error: HTTP is not supported\n", 0), "{request:?} {read_size}");
        }
    }
}

/// HTTP servers ignore empty lines before a request (RFC 9112, section 2.2). Here they are lines,
/// and are answered if they arrive before the request.
#[tokio::test(start_paused = true)]
async fn http_requests_after_empty_lines_are_refused() {
    for before in ["\r\n", "\n", "\r\n\n\r\n"] {
        let long = "a".repeat(200);
        for target in ["/", &long] {
            let sent = format!("{before}POST /{target} HTTP/1.1{COMMANDS}");
            for read_size in (1..=sent.len() + 1).chain([1 << 16]) {
                let codec = LineCodec::builder().max_length(64).build();
                let (said, seen) = guarded(codec, sent.as_bytes(), read_size).await;
                let empty = "\n".repeat(seen);
                assert_eq!(said, format!("{empty}error: HTTP is not supported\n"), "{sent:?} {read_size}");
                assert!(seen <= before.matches('\n').count(), "{sent:?} {read_size}");
            }
        }
    }
    let (said, seen) = guarded(LineCodec::new(), b"\r\n\nhello\nGET / HTTP/1.1\n", 4).await;
    assert_eq!((&said[..], seen), ("\n\nhello\nGET / HTTP/1.1\n", 4));
}

#[tokio::test(start_paused = true)]
async fn http_requests_with_long_targets_are_refused() {
    for length in [100, 8170, 8171, 8192, 10_000, 65_520, 65_536, 65_537, 100_000, 200_000] {
        let sent = format!("POST /{} HTTP/1.1{COMMANDS}", "a".repeat(length));
        for read_size in [7, 1000, 8192, 1 << 20] {
            for max_length in [64, 65_536] {
                let codec = LineCodec::builder().max_length(max_length).build();
                let (said, seen) = guarded(codec, sent.as_bytes(), read_size).await;
                assert_eq!(
                    (&said[..], seen),
                    ("error: HTTP is not supported\n", 0),
                    "{length} bytes, {read_size} at once, lines of {max_length}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn http_requests_are_refused_with_any_delimiter() {
    let sent = format!("POST / HTTP/1.1{COMMANDS}");
    for delimiter in [
        Delimiter::Lf,
        Delimiter::CrLf,
        Delimiter::Byte(0),
        Delimiter::Byte(b'\r'),
        Delimiter::any_of(b"\r\n").unwrap(),
    ] {
        for read_size in 1..=sent.len() {
            let codec = LineCodec::builder().delimiter(delimiter.clone()).build();
            let (said, seen) = guarded(codec, sent.as_bytes(), read_size).await;
            assert!(said.starts_with("error: HTTP"), "{said:?} {delimiter:?} {read_size}");
            assert_eq!(seen, 0, "{delimiter:?} {read_size}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn tls_handshakes_run_no_commands_however_cut() {
    let sent = b"\x16\x03\x01\x00\x20\x01\nshutdown\nshutdown\n";
    for read_size in 1..=sent.len() {
        let (said, seen) = guarded(LineCodec::new(), sent, read_size).await;
        assert_eq!((&said[..], seen), ("error: TLS is not supported\n", 0), "{read_size}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_first_line_is_checked_for_http() {
    let sent = "first;GET / HTTP/1.1\r\nHost: x;\x16\x03\x01;";
    for read_size in (1..=sent.len()).chain([1 << 16]) {
        let codec = LineCodec::builder().delimiter(Delimiter::Byte(b';')).build();
        let (said, seen) = guarded(codec, sent.as_bytes(), read_size).await;
        assert_eq!((&said[..], seen), (sent, 3), "{read_size}");
    }
    // A short first line that looks like the start of a request is accepted if the request does not
    // continue.
    let sent = format!("GET /;{}", "x;".repeat(20));
    let codec = LineCodec::builder().delimiter(Delimiter::Byte(b';')).max_length(8).build();
    let (said, seen) = guarded(codec, sent.as_bytes(), 64).await;
    assert_eq!((&said[..], seen), (&sent[..], 21));
}

/// Skipped bytes and counted blocks are not lines.
#[tokio::test(start_paused = true)]
async fn first_line_is_checked_after_skipped_bytes() {
    const BEFORE: &str = "GET / HTTP/1.1\r\nHost: x\n";
    for (line, refused) in [("hello\n", false), ("GET / HTTP/1.1\r\n", true)] {
        let sent = format!("{BEFORE}{line}");
        for read_size in 1..=sent.len() {
            let skipping = async |mut conn: Connection| {
                // Dropping the body skips it.
                _ = conn.body(BEFORE.len() as u64);
                while let Some(line) = conn.next_line().await? {
                    conn.write_line(line?).await?;
                }
                Ok(())
            };
            let said = said_under_guard(LineCodec::new(), sent.as_bytes(), read_size, skipping).await;
            assert_eq!(said, if refused { "error: HTTP is not supported\n" } else { line }, "{read_size}");
        }
    }
}

/// The guard has already examined the bytes that are then skipped or read as a block or body.
#[tokio::test(start_paused = true)]
async fn first_line_is_checked_after_a_dropped_wait() {
    #[derive(Clone, Copy)]
    enum First {
        Skips,
        TakesBytes,
        TakesBody,
    }
    for (first, said) in [
        (First::Skips, "error: HTTP is not supported\n"),
        (First::TakesBytes, "GET / HTTP/1.1\n"),
        (First::TakesBody, "GET / HTTP/1.1\n"),
    ] {
        let handler = async move |mut conn: Connection| {
            _ = timeout(MILLISECOND, conn.next_line()).await.unwrap_err();
            match first {
                First::Skips => conn.skip_bytes(6).await?,
                First::TakesBytes => assert_eq!(conn.read_bytes(6).await?, "abcdef"),
                First::TakesBody => _ = conn.body(6).read_exact(&mut [0; 6]).await?,
            }
            while let Some(line) = conn.next_line().await? {
                conn.write_line(line?).await?;
            }
            Ok(())
        };
        let (dialer, listener) = in_memory();
        let running = Running::start(Server::builder().refuse_http_and_tls(true), listener, handler);
        let (mut reader, mut writer) = tokio::io::split(dialer.connect(64));
        for part in ["abcde", "f", "GE", "T / HTTP/1.1\n"] {
            writer.write_all(part.as_bytes()).await.unwrap();
            tokio::time::sleep(2 * MILLISECOND).await;
        }
        writer.shutdown().await.unwrap();
        assert_eq!(rest(&mut reader).await, said);
        assert_eq!(running.stopped().await.panicked, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn ordinary_lines_pass_the_guard() {
    let long = format!("SET key {}\n", "v".repeat(9000));
    for sent in [
        "GET key\nGET / HTTP/1.1\n",
        "SET a HTTP\nb\n",
        "POST\n/ HTTP/1.1\n",
        "get / HTTP/1.1\n",
        "GET / HTTP\n",
        &long,
    ] {
        for read_size in [1, 2, 5, 8192, 1 << 16] {
            let lines = sent.matches('\n').count();
            let (said, seen) = guarded(LineCodec::new(), sent.as_bytes(), read_size).await;
            assert_eq!((&said[..], seen), (sent, lines), "{read_size}");
        }
    }
}

#[tokio::test]
async fn browsers_get_an_error_over_tcp() {
    let (address, listener) = tcp(Buffers::Usual);
    let server =
        (address, Running::start(Server::builder().refuse_http_and_tls(true), listener, reply(upper)));
    let sent = format!("POST / HTTP/1.1{COMMANDS}").repeat(1000);
    assert_eq!(said(&server, sent.as_bytes()).await, b"error: HTTP is not supported\n");
    assert_eq!(said(&server, b"\x16\x03\x01 and more").await, b"error: TLS is not supported\n");
    assert_eq!(said(&server, b"a\n").await, b"A\n");
    let counters = soon(server.1.stopped()).await;
    assert_eq!((counters.refused, counters.failed, counters.lines), (2, 0, 1));
}

/// Without this check, commands sent in clear text after STARTTLS would be run as if they had
/// arrived over TLS.
#[tokio::test]
async fn upgrade_fails_with_unread_plaintext_input() {
    let upgrades = Arc::new(AtomicUsize::new(0));
    let upgraded = Arc::clone(&upgrades);
    let handler = async move |mut conn: Connection| {
        while let Some(line) = conn.next_line().await? {
            let line = line?;
            if line == "starttls" {
                let upgrade = conn.upgrade(async |io| {
                    upgraded.fetch_add(1, SeqCst);
                    Ok(io)
                });
                match upgrade.await {
                    Ok(()) => conn.write_line("go ahead").await?,
                    Err(Error::LeftOver { bytes }) => {
                        conn.write_line(format!("refused for {bytes} bytes")).await?;
                        return Err(Error::LeftOver { bytes }.into());
                    }
                    Err(error) => return Err(error.into()),
                }
            } else {
                conn.write_line(upper(&line)).await?;
            }
        }
        Ok(())
    };
    let (address, listener) = tcp(Buffers::Usual);
    let running = Running::start(Server::builder(), listener, handler);

    let mut peer = address.connect().await.unwrap();
    peer.write_all(b"starttls\nsecret\n").await.unwrap();
    assert_eq!(soon(rest(&mut peer)).await, "refused for 7 bytes\n");
    assert_eq!(upgrades.load(SeqCst), 0);

    let mut peer = address.connect().await.unwrap();
    peer.write_all(b"a\nstarttls\n").await.unwrap();
    assert_eq!(soon(line(&mut peer)).await, "A\n");
    assert_eq!(soon(line(&mut peer)).await, "go ahead\n");
    peer.write_all(b"secret\n").await.unwrap();
    assert_eq!(soon(line(&mut peer)).await, "SECRET\n");
    assert_eq!(upgrades.load(SeqCst), 1);
    drop(peer);
    let counters = soon(running.stopped()).await;
    assert_eq!((counters.failed, counters.lines), (1, 4));
}

#[tokio::test]
async fn into_upgrade_fails_with_unsent_output() {
    let (_peer, io) = tokio::io::duplex(64);
    let mut conn = Connection::new(io);
    conn.write_line("go").await.unwrap();
    assert!(matches!(conn.into_upgrade().map_err(Error::from), Err(Error::LeftOver { bytes: 3, .. })));

    let (mut peer, io) = tokio::io::duplex(64);
    peer.write_all(b"one\ntwo\n").await.unwrap();
    let mut conn = Connection::new(io);
    conn.next_line().await.unwrap();
    conn.write_line("go").await.unwrap();
    assert!(matches!(conn.into_upgrade().map_err(Error::from), Err(Error::LeftOver { bytes: 7, .. })));
}

#[tokio::test]
async fn into_upgrade_fails_with_unread_input() {
    let (mut peer, io) = tokio::io::duplex(64);
    peer.write_all(b"one\ntwo\nthr").await.unwrap();
    let mut conn = Connection::new(io);
    assert_eq!(conn.next_line().await.unwrap().unwrap().unwrap(), "one");
    assert!(matches!(conn.into_upgrade().map_err(Error::from), Err(Error::LeftOver { bytes: 7, .. })));

    let (mut peer, io) = tokio::io::duplex(64);
    peer.write_all(b"one\n").await.unwrap();
    let mut conn = Connection::new(io);
    assert_eq!(conn.next_line().await.unwrap().unwrap().unwrap(), "one");
    let mut io = conn.into_upgrade().unwrap();
    peer.write_all(b"raw").await.unwrap();
    let mut raw = [0; 3];
    io.read_exact(&mut raw).await.unwrap();
    assert_eq!(&raw, b"raw");
}

#[tokio::test]
async fn upgrade_fails_with_lines_put_back() {
    let (mut peer, io) = tokio::io::duplex(64);
    peer.write_all(b"starttls\nsecret\n").await.unwrap();
    let mut conn = Connection::new(io);
    let mut batch = conn.next_batch().await.unwrap().unwrap();
    assert_eq!(batch.next().unwrap().unwrap(), "starttls");
    conn.put_back(batch).unwrap();
    let upgraded = conn.upgrade(async |io| -> io::Result<_> { Ok(io) }).await;
    assert!(matches!(upgraded, Err(Error::LeftOver { bytes: 7, .. })));
}

/// A codec may have a pending block when it is given to a connection.
#[tokio::test]
async fn block_in_a_batch_is_put_back_uncounted() {
    for (expected, items) in [(3, 2), (10, 1)] {
        let (mut peer, io) = tokio::io::duplex(64);
        peer.write_all(b"abcline\n").await.unwrap();
        drop(peer);
        let mut codec = LineCodec::new();
        codec.expect_bytes(expected).unwrap();
        let mut conn = Connection::with_codec(io, codec);
        // If EOF is noticed before the batch is complete, the incomplete block is an item too.
        let batch = conn.next_batch().await.unwrap().unwrap();
        assert_eq!((batch.len(), batch.iter().filter(Result::is_err).count()), (items, 2 - items));
        conn.put_back(batch).unwrap();
        let read = conn.counters().read;
        assert_eq!((read.blocks, read.incomplete, read.lines, read.content_bytes), (0, 0, 0, 0));
        assert_eq!(conn.next_line().await.unwrap().unwrap().unwrap(), "abcline");
    }
}

#[tokio::test]
async fn upgrade_fails_with_bytes_to_skip() {
    async fn is_refused(mut conn: Connection, expected: usize) {
        let upgraded =
            conn.upgrade(async |_| -> io::Result<AnyIo> { panic!("the upgrade must be refused") }).await;
        assert!(matches!(upgraded, Err(Error::LeftOver { bytes, .. }) if bytes == expected), "{upgraded:?}");
        let given = conn.into_upgrade().map_err(Error::from);
        assert!(matches!(given, Err(Error::LeftOver { bytes, .. }) if bytes == expected), "{given:?}");
    }
    let (mut peer, io) = tokio::io::duplex(64);
    peer.write_all(b"put 10\n").await.unwrap();
    let mut conn = Connection::new(io);
    conn.next_line().await.unwrap();
    drop(conn.body(10));
    is_refused(conn, 10).await;

    let (mut peer, io) = tokio::io::duplex(64);
    peer.write_all(b"too long").await.unwrap();
    let mut conn = Connection::with_codec(io, LineCodec::builder().max_length(4).build());
    assert!(conn.next_line().await.unwrap().unwrap().is_err());
    is_refused(conn, 1).await;
}
