//! The client over real sockets: the addresses it tries, its timeouts, and its errors.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use lineframe::{Client, ConnectError, Delimiter, Error, LineCodec, Peer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};
use tokio_util::codec::Decoder;

/// Returns a bound port without a listener. Connecting to it is refused until the socket listens.
fn silent_port() -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let addr = socket.local_addr()?;
    Ok((socket, addr))
}

fn attempts(error: &ConnectError) -> Vec<(String, io::ErrorKind)> {
    error.tried().map(|(at, error)| (at.to_owned(), error.kind())).collect()
}

#[tokio::test]
async fn connects_and_exchanges_lines() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    // A codec that was used on another stream and stopped in the middle of it.
    let mut codec = LineCodec::builder().delimiter(Delimiter::CrLf).build();
    codec.skip_bytes(100);
    assert!(codec.decode(&mut BytesMut::from("half a li"))?.is_none());
    let client = Client::builder().codec(codec).build();
    // Every accepted type of address.
    let (ip, port) = (addr.ip().to_string(), addr.port());
    let connections = [
        client.connect(addr).await?,
        client.connect(&[addr][..]).await?,
        client.connect(addr.to_string()).await?,
        client.connect(&*addr.to_string()).await?,
        client.connect((addr.ip(), port)).await?,
        client.connect((ip.as_str(), port)).await?,
        client.clone().connect((ip.clone(), port)).await?,
    ];
    for mut conn in connections {
        let (mut there, from) = listener.accept().await?;
        let answer = async {
            let mut line = [0; 7];
            there.read_exact(&mut line).await?;
            assert_eq!(&line, b"hello\r\n");
            there.write_all(b"world\r\n").await
        };
        let (reply, answered) = tokio::join!(conn.request("hello"), answer);
        answered?;
        assert_eq!(reply?, "world");
        assert_eq!(conn.peer(), Peer::Tcp(addr));
        let io = conn.io().downcast_ref::<TcpStream>().unwrap();
        assert_eq!(io.local_addr()?, from);
        assert!(io.nodelay()?, "a line waits for no other");
    }
    Ok(())
}

#[tokio::test]
async fn a_host_name_is_looked_up() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    // On some machines `localhost` resolves to `::1` first. That address refuses, and the client
    // tries the next one.
    let conn = Client::new().connect(("localhost", port)).await?;
    assert_eq!(conn.peer(), Peer::Tcp(listener.local_addr()?));
    Ok(())
}

#[tokio::test]
async fn connect_future_can_be_spawned() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let tcp = tokio::spawn(async move { Client::new().connect(addr.to_string()).await });
    assert_eq!(tcp.await??.peer(), Peer::Tcp(addr));
    // `connect` must not enlarge the future of a caller by much.
    let client = Client::new();
    assert!(size_of_val(&client.connect(addr)) <= 100);
    Ok(())
}

#[tokio::test]
async fn next_address_is_tried_after_a_refusal() -> Result<(), Error> {
    let (_socket, refuses) = silent_port()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let listens = listener.local_addr()?;
    let conn = Client::new().connect(&[refuses, listens][..]).await?;
    assert_eq!(conn.peer(), Peer::Tcp(listens));
    Ok(())
}

#[tokio::test]
async fn error_names_every_refusing_address() -> io::Result<()> {
    let ports = [silent_port()?, silent_port()?, silent_port()?];
    let addrs = ports.each_ref().map(|(_, addr)| *addr);
    let error = Client::new().connect(&addrs[..]).await.unwrap_err();
    assert_eq!(attempts(&error), addrs.map(|addr| (addr.to_string(), io::ErrorKind::ConnectionRefused)));
    let said = error.to_string();
    assert!(said.starts_with("cannot connect to ["), "{said}");
    for (at, why) in error.tried() {
        assert!(said.contains(&format!("{at}: {why}")), "{said}");
    }
    assert_eq!(format!("{error:?}"), format!("ConnectError({said})"));
    assert_eq!(format!("{error:#?}"), format!("ConnectError({said})"));
    // `Display` includes all attempts, so there is no source.
    assert!(error.source().is_none());

    // With a single address, the message names it once.
    let error = Client::new().connect(addrs[0]).await.unwrap_err();
    let why = error.tried().next().unwrap().1.to_string();
    assert_eq!(error.to_string(), format!("cannot connect to {}: {why}", addrs[0]));
    let error = Client::new().connect(addrs[0].to_string()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot connect to \"{}\": {why}", addrs[0]));
    Ok(())
}

#[tokio::test]
async fn connect_error_converts_and_keeps_its_kind() -> io::Result<()> {
    let (_socket, refuses) = silent_port()?;
    let failed = async || Client::new().connect(refuses).await.unwrap_err();
    let said = failed().await.to_string();
    let as_io = io::Error::from(failed().await);
    assert_eq!((as_io.kind(), as_io.to_string()), (io::ErrorKind::ConnectionRefused, said.clone()));
    let Error::Io(within) = Error::from(failed().await) else { panic!("expected an I/O error") };
    assert_eq!((within.kind(), within.to_string()), (io::ErrorKind::ConnectionRefused, said.clone()));
    assert!(within.get_ref().is_some_and(|within| within.is::<ConnectError>()));
    // Converting to `io::Error` and back keeps the error.
    let Error::Io(same) = Error::from(io::Error::from(Error::from(failed().await))) else { panic!() };
    assert_eq!(same.to_string(), said);
    Ok(())
}

#[tokio::test]
async fn unknown_host_is_named_in_the_error() {
    // RFC 6761 reserves `.invalid`, so the lookup always fails.
    let client = Client::builder().connect_timeout(None).build();
    let error = client.connect("no.such.host.invalid:7000").await.unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with("cannot connect to \"no.such.host.invalid:7000\": name lookup: "), "{said}");
    assert_eq!(error.tried().map(|(at, _)| at).collect::<Vec<_>>(), ["name lookup"]);
    assert!(matches!(Error::from(error), Error::Io(_)));
}

/// The clock is paused, so the elapsed time is zero if there is no second round.
#[tokio::test(start_paused = true)]
async fn permanent_errors_are_not_retried() {
    let client = Client::builder().retry(3).build();
    let start = Instant::now();
    let error = client.connect("no port").await.unwrap_err();
    assert_eq!(attempts(&error), [("name lookup".to_owned(), io::ErrorKind::InvalidInput)]);
    let error = client.connect(&[][..]).await.unwrap_err();
    assert_eq!(attempts(&error), [("name lookup".to_owned(), io::ErrorKind::InvalidInput)]);
    assert_eq!(error.to_string(), "cannot connect to []: name lookup: no address to connect to");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn control_characters_of_a_target_are_escaped() {
    let error = Client::new().connect("a\n\x1b[2J\u{202e}\u{9b}:x").await.unwrap_err();
    for said in [format!("{error}"), format!("{error:?}"), format!("{error:#?}")] {
        assert!(!said.contains(|c: char| c.is_control() || c == '\u{202e}'), "{said:?}");
        assert!(said.contains("a\\n\\u{1b}[2J\\u{202e}\\u{9b}:x"), "{said:?}");
    }
}

/// Only the pauses use a timer, so they are all the time that passes on the paused clock.
#[tokio::test(start_paused = true)]
async fn retry_pauses_double_up_to_five_seconds() -> io::Result<()> {
    let (_socket, refuses) = silent_port()?;
    let pauses = [100, 200, 400, 800, 1600, 3200, 5000, 5000];
    for rounds in [0, 1, pauses.len()] {
        let client = Client::builder().connect_timeout(None).retry(rounds as u32).build();
        let start = Instant::now();
        let error = client.connect(refuses).await.unwrap_err();
        let paused = Duration::from_millis(pauses[..rounds].iter().sum());
        // The clock has a resolution of 1 ms.
        let late = start.elapsed() - paused;
        assert!(late <= Duration::from_millis(2 * rounds as u64), "{rounds} rounds: {late:?} late");
        // The message names the address once, with the number of attempts.
        assert_eq!(attempts(&error), [(refuses.to_string(), io::ErrorKind::ConnectionRefused)]);
        let times = format!(", {} times", rounds + 1);
        assert_eq!(error.to_string().ends_with(&times), rounds > 0, "{error}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn late_tcp_server_is_reached_by_retrying() -> Result<(), Error> {
    let (socket, addr) = silent_port()?;
    let client = Client::builder().connect_timeout(None).retry(3).build();
    // 200 ms is between the second round (after 100 ms) and the third (after 300 ms).
    let comes_up = async {
        sleep(Duration::from_millis(200)).await;
        socket.listen(1)
    };
    let (conn, listener) = tokio::join!(client.connect(addr), comes_up);
    let _listener = listener?;
    assert_eq!(conn?.peer(), Peer::Tcp(addr));
    Ok(())
}

/// A temporary directory that is removed on drop.
#[cfg(unix)]
struct Dir(std::path::PathBuf);

#[cfg(unix)]
impl Dir {
    fn new(test: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("lineframe-client-{}-{test}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn socket(&self) -> std::path::PathBuf {
        self.0.join("socket")
    }
}

#[cfg(unix)]
impl Drop for Dir {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Returns `true` if `expected` has passed since `start`, within 20 ms. The paused clock has a
/// resolution of 1 ms.
#[cfg(unix)]
fn about(start: Instant, expected: Duration) -> bool {
    (expected..expected + Duration::from_millis(20)).contains(&start.elapsed())
}

#[tokio::test]
async fn any_connect_timeout_is_accepted() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    for timeout in [None, Some(Duration::MAX), Some(Duration::from_secs(3600))] {
        let client = Client::builder().connect_timeout(timeout).build();
        client.connect(listener.local_addr()?).await?;
    }
    Ok(())
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use tokio::net::{UnixListener, UnixStream};

    use super::*;

    #[tokio::test]
    async fn connects_to_a_unix_socket_path() -> Result<(), Error> {
        let dir = Dir::new("path")?;
        let path = dir.socket();
        let listener = UnixListener::bind(&path)?;
        // The future can be spawned.
        let connecting = tokio::spawn({
            let path = path.clone();
            async move { Client::new().connect_unix(path).await }
        });
        let mut conn = connecting.await.unwrap()?;
        assert!(conn.io().downcast_ref::<UnixStream>().is_some());
        let Peer::Unix { pid, uid, .. } = conn.peer() else { panic!("{:?}", conn.peer()) };
        assert_eq!(uid, std::fs::metadata(&path)?.uid());
        if let Some(pid) = pid {
            assert_eq!(pid.unsigned_abs(), std::process::id());
        }
        let (mut there, _) = listener.accept().await?;
        there.write_all(b"world\n").await?;
        assert_eq!(conn.request("hello").await?, "world");
        let mut line = [0; 6];
        there.read_exact(&mut line).await?;
        assert_eq!(&line, b"hello\n");
        Ok(())
    }

    #[tokio::test]
    async fn unix_connect_error_names_the_path_once() -> io::Result<()> {
        let dir = Dir::new("nobody")?;
        let path = dir.socket();
        let missing = Client::new().connect_unix(&path).await.unwrap_err();
        assert_eq!(attempts(&missing), [(path.display().to_string(), io::ErrorKind::NotFound)]);
        // A killed server leaves its socket file behind.
        drop(UnixListener::bind(&path)?);
        let refused = Client::new().connect_unix(&path).await.unwrap_err();
        assert_eq!(attempts(&refused), [(path.display().to_string(), io::ErrorKind::ConnectionRefused)]);
        for error in [missing, refused] {
            let why = error.tried().next().unwrap().1.to_string();
            assert_eq!(error.to_string(), format!("cannot connect to {path:?}: {why}"));
        }
        Ok(())
    }

    /// Unix sockets connect or fail immediately, so only the pauses take time on the paused clock.
    #[tokio::test(start_paused = true)]
    async fn late_unix_server_is_reached_by_retrying() -> io::Result<()> {
        let dir = Dir::new("starting")?;
        let client = Client::builder().retry(3).build();
        let start = Instant::now();
        let starts = async {
            // 200 ms is between the second round and the third.
            sleep(Duration::from_millis(200)).await;
            UnixListener::bind(dir.socket())
        };
        let (conn, listener) = tokio::join!(client.connect_unix(dir.socket()), starts);
        let (_listener, _conn) = (listener?, conn?);
        assert!(about(start, Duration::from_millis(300)), "{:?}", start.elapsed());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn invalid_unix_path_is_not_retried() {
        let start = Instant::now();
        let path = Path::new("/").join("x".repeat(1000));
        let error = Client::builder().retry(3).build().connect_unix(&path).await.unwrap_err();
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

/// Linux drops connection attempts if the accept queue is full; other systems differ.
#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;
    use std::pin::Pin;

    use futures::FutureExt;
    use lineframe::TimeoutKind;
    use tokio::net::{UnixListener, UnixSocket, UnixStream};

    use super::*;

    /// A listener that never accepts and whose accept queue is full. Connection attempts get no
    /// answer.
    struct Silent {
        addr: SocketAddr,
        _listener: TcpListener,
        _waiting: Vec<Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>>,
    }

    fn silent() -> io::Result<Silent> {
        let (socket, addr) = silent_port()?;
        let listener = socket.listen(1)?;
        let mut waiting = Vec::new();
        for _ in 0..16 {
            let mut connect: Pin<Box<dyn Future<Output = _>>> = Box::pin(TcpStream::connect(addr));
            // The attempt has started. The system decides which attempts fit the queue.
            assert!((&mut connect).now_or_never().is_none_or(|connected| connected.is_ok()));
            waiting.push(connect);
        }
        Ok(Silent { addr, _listener: listener, _waiting: waiting })
    }

    #[tokio::test(start_paused = true)]
    async fn silent_address_fails_at_connect_timeout() -> io::Result<()> {
        let silent = silent()?;
        let start = Instant::now();
        let error = Client::new().connect(silent.addr).await.unwrap_err();
        assert!(about(start, Duration::from_secs(10)), "{:?}: {error}", start.elapsed());
        assert_eq!(attempts(&error), [(silent.addr.to_string(), io::ErrorKind::TimedOut)]);
        assert!(error.to_string().ends_with("no answer in time (connect_timeout)"), "{error}");
        assert!(matches!(Error::from(error), Error::Timeout(TimeoutKind::Connect)));

        // Each of the three rounds takes 1 s. The pauses between them are 100 ms and 200 ms.
        let client = Client::builder().connect_timeout(Duration::from_secs(1)).retry(2).build();
        let start = Instant::now();
        let error = client.connect(silent.addr).await.unwrap_err();
        assert!(about(start, Duration::from_millis(3300)), "{:?}: {error}", start.elapsed());
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::TimedOut);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn silent_address_leaves_time_for_the_next() -> Result<(), Error> {
        let silent = silent()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let listens = listener.local_addr()?;
        let (half, whole) = (Duration::from_secs(30), Duration::from_secs(60));
        let client = Client::builder().connect_timeout(whole).build();
        let start = Instant::now();
        // The next address is tried on the real clock, because a paused clock does not wait for the
        // system. The remaining 30 s are more than enough on a busy machine.
        let resume = async {
            sleep(half).await;
            tokio::time::resume();
            start.elapsed()
        };
        let addresses = [silent.addr, listens];
        let (conn, resumed) = tokio::join!(client.connect(&addresses[..]), resume);
        assert_eq!(conn?.peer(), Peer::Tcp(listens));
        assert!(resumed < half + Duration::from_millis(20), "{resumed:?}");
        // The silent address used half of the timeout, not all of it.
        assert!(start.elapsed() < whole, "{:?}", start.elapsed());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn last_address_gets_all_remaining_time() -> io::Result<()> {
        let silent = [silent()?, silent()?];
        let start = Instant::now();
        let error =
            Client::new().connect(&silent.each_ref().map(|silent| silent.addr)[..]).await.unwrap_err();
        assert!(about(start, Duration::from_secs(10)), "{:?}: {error}", start.elapsed());
        Ok(())
    }

    /// Returns a listener on `path` whose accept queue is full.
    async fn full(path: &Path) -> io::Result<(UnixListener, Vec<UnixStream>)> {
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        let listener = socket.listen(1)?;
        let mut waiting = Vec::new();
        loop {
            match UnixStream::connect(path).await {
                Ok(stream) => waiting.push(stream),
                Err(full) => {
                    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
                    return Ok((listener, waiting));
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn full_backlog_is_retried_until_connect_timeout() -> io::Result<()> {
        let dir = Dir::new("full")?;
        let path = dir.socket();
        let (listener, waiting) = full(&path).await?;
        let start = Instant::now();
        let error = Client::new().connect_unix(&path).await.unwrap_err();
        assert!(about(start, Duration::from_secs(10)), "{:?}: {error}", start.elapsed());
        assert_eq!(attempts(&error), [(path.display().to_string(), io::ErrorKind::TimedOut)]);

        let start = Instant::now();
        let makes_room = async {
            sleep(Duration::from_secs(1)).await;
            listener.accept().await
        };
        let client = Client::new();
        let (conn, accepted) = tokio::join!(client.connect_unix(&path), makes_room);
        let (_conn, _accepted) = (conn?, accepted?);
        assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
        assert!(start.elapsed() <= Duration::from_millis(1200), "{:?}", start.elapsed());
        drop(waiting);
        Ok(())
    }

    #[tokio::test]
    async fn abstract_unix_names_begin_with_nul() -> io::Result<()> {
        let name = format!("\0lineframe-client-{}", std::process::id());
        let error = Client::new().connect_unix(&name).await.unwrap_err();
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::ConnectionRefused);
        let said = Client::new().connect_unix(&name).await.unwrap_err().to_string();
        assert!(!said.contains('\0') && said.contains(&name[1..]), "{said:?}");
        let _listener = UnixListener::bind(&name)?;
        Client::new().connect_unix(&name).await?;
        Ok(())
    }
}
