//! TCP socket options.

use std::io::{Read, Write};
use std::time::Duration;

use lineframe::{Client, Connection, Keepalive, Server, ServerBuilder};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;

use crate::served::{Address, Buffers, Running, soon, tcp};

const SECOND: Duration = Duration::from_secs(1);

/// The keepalive and user timeout settings of a socket.
#[derive(Debug, PartialEq)]
struct Options {
    /// Idle time, interval and probes, or `None` if keepalive is off.
    keepalive: Option<(Duration, Duration, u32)>,
    user_timeout: Option<Duration>,
}

fn options(conn: &Connection) -> Options {
    let socket = SockRef::from(conn.io().downcast_ref::<TcpStream>().unwrap());
    Options {
        keepalive: socket.keepalive().unwrap().then(|| {
            let (interval, probes) = (socket.tcp_keepalive_interval(), socket.tcp_keepalive_retries());
            (socket.tcp_keepalive_time().unwrap(), interval.unwrap(), probes.unwrap())
        }),
        user_timeout: socket.tcp_user_timeout().unwrap().filter(|timeout| !timeout.is_zero()),
    }
}

async fn of_server(builder: ServerBuilder) -> Options {
    let (address, listener) = tcp(Buffers::Usual);
    let (found, mut options_found) = unbounded_channel();
    let handler = async move |conn: Connection| {
        _ = found.send(options(&conn));
        Ok(())
    };
    let _running = Running::start(builder, listener, handler);
    let _peer = address.connect().await.unwrap();
    soon(options_found.recv()).await.unwrap()
}

#[tokio::test]
#[cfg(target_os = "linux")]
pub(crate) async fn keepalive() {
    let usual = Some((60 * SECOND, 10 * SECOND, 3));
    let found = of_server(Server::builder()).await;
    assert_eq!(found, Options { keepalive: usual, user_timeout: Some(90 * SECOND) });
    let found = of_server(Server::builder().write_timeout(100 * SECOND)).await;
    assert_eq!(found, Options { keepalive: usual, user_timeout: Some(100 * SECOND) });
    let found = of_server(Server::builder().write_timeout(None).keepalive(None)).await;
    assert_eq!(found, Options { keepalive: None, user_timeout: None });
    let changed = Keepalive::new().idle(7 * SECOND).interval(2 * SECOND).probes(5);
    let found = of_server(Server::builder().keepalive(changed)).await;
    assert_eq!(found.keepalive, Some((7 * SECOND, 2 * SECOND, 5)));

    let (Address::Tcp(address, _), _listener) = &tcp(Buffers::Usual) else { unreachable!() };
    let conn = Client::new().connect(address).await.unwrap();
    assert_eq!(options(&conn), Options { keepalive: usual, user_timeout: None });
    let conn = Client::builder().keepalive(None).build().connect(address).await.unwrap();
    assert_eq!(options(&conn), Options { keepalive: None, user_timeout: None });
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn keepalive() {}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn urgent_data_is_read_inline() {
    let (address, listener) = tcp(Buffers::Usual);
    let Address::Tcp(at, _) = &address else { unreachable!() };
    // A read ends before urgent data, and Tokio then takes the socket to be empty. The rest is read
    // within the deadline only if the server asks the system before it checks the deadline.
    let builder = Server::builder().line_timeout(3 * SECOND);
    let running = Running::start(builder, listener, lineframe::reply(|line| line.to_vec()));
    let (at, accepted) = (*at, running.server.clone());
    let asking = tokio::task::spawn_blocking(move || {
        let mut peer = std::net::TcpStream::connect(at).unwrap();
        // The server sets the option when it accepts the connection.
        while accepted.counters().open == 0 {
            std::thread::yield_now();
        }
        peer.write_all(b"x\n").unwrap();
        let mut reply = [0; 2];
        peer.read_exact(&mut reply).unwrap();
        peer.write_all(b"ab").unwrap();
        SockRef::from(&peer).send_out_of_band(b"!").unwrap();
        peer.write_all(b"cd\n").unwrap();
        let mut reply = [0; 6];
        peer.read_exact(&mut reply).unwrap();
        reply
    });
    assert_eq!(&soon(asking).await.unwrap(), b"ab!cd\n");
}
