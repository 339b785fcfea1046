//! Limits per address, before and after a handshake.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use lineframe::{Accepted, AnyIo, Peer, Server, ServerBuilder, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Semaphore;

use crate::served::{Running, in_memory, line, rest, soon, upper};

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Handshake that reads one byte, the last byte of the address of the real client.
async fn learns_the_address(mut accepted: Accepted) -> std::io::Result<Accepted> {
    let byte = accepted.io.read_u8().await?;
    accepted.peer = Peer::Tcp(SocketAddr::from(([10, 0, 0, byte], 1024)));
    Ok(accepted)
}

fn with_handshake() -> ServerBuilder {
    let builder = Server::builder().handshake_timeout(None).handshake(learns_the_address);
    builder.max_connections(10).max_connections_per_ip(2)
}

async fn is_served(peer: &mut DuplexStream) -> bool {
    peer.write_all(b"a\n").await.is_ok() && soon(line(peer)).await == "A\n"
}

#[tokio::test]
pub(crate) async fn addresses_are_counted_before_the_handshake() {
    let (dialer, listener) = in_memory();
    let running = Running::start(with_handshake(), listener, reply(upper));
    let mut silent: Vec<_> = (0..10).map(|_| dialer.connect_from(ONE, 64)).collect();
    let mut peer = dialer.connect_from(OTHER, 64);
    peer.write_all(&[7]).await.unwrap();
    assert!(is_served(&mut peer).await, "other addresses still get a connection");
    for refused in &mut silent[2..] {
        assert_eq!(soon(rest(refused)).await, "");
    }
    assert_eq!(running.server.counters().refused, 8);
}

#[tokio::test]
pub(crate) async fn reported_addresses_are_counted_after_the_handshake() {
    let (dialer, listener) = in_memory();
    let running = Running::start(with_handshake(), listener, reply(upper));
    let mut peers = Vec::new();
    for (reported, may_stay) in [(1, true), (2, true), (1, true), (1, false), (2, true)] {
        let mut peer = dialer.connect_from(ONE, 64);
        peer.write_all(&[reported]).await.unwrap();
        assert_eq!(is_served(&mut peer).await, may_stay, "as {reported}");
        peers.push(peer);
    }
    assert_eq!(running.server.counters().refused, 1);
}

#[tokio::test]
pub(crate) async fn trusted_proxies_are_not_counted() {
    let server = with_handshake().build();
    let connect = |reported: u8| {
        let (peer, io) = duplex(64);
        let accepted = Accepted::new(AnyIo::new(io), Peer::Tcp((ONE, 1024).into())).from_trusted_proxy();
        tokio::spawn(server.serve_one(accepted, reply(upper)));
        async move {
            let mut peer = peer;
            peer.write_all(&[reported]).await.unwrap();
            is_served(&mut peer).await.then_some(peer)
        }
    };
    // More than two connections are in the handshake at the same time.
    let connecting: Vec<_> = (1..=5).chain([1, 1]).map(connect).collect();
    let mut served = Vec::new();
    for connecting in connecting {
        served.push(connecting.await);
    }
    let is_served: Vec<_> = served.iter().map(Option::is_some).collect();
    assert_eq!(is_served, [true, true, true, true, true, true, false]);
}

/// Returns which of these peers are served if each address may have one connection.
async fn served(builder: ServerBuilder, peers: &[&str]) -> Vec<bool> {
    let server = builder.max_connections_per_ip(1).build();
    let mut served = Vec::new();
    let mut connections = Vec::new();
    for ip in peers {
        let (mut peer, io) = duplex(64);
        let ip: IpAddr = ip.parse().unwrap();
        let accepted = Accepted::new(AnyIo::new(io), Peer::Tcp((ip, 1024).into()));
        tokio::spawn(server.serve_one(accepted, reply(upper)));
        served.push(is_served(&mut peer).await);
        connections.push(peer);
    }
    served
}

#[tokio::test]
pub(crate) async fn per_ip_prefix() {
    let peers = ["2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8:0:1::1", "2001:db9::1"];
    assert_eq!(served(Server::builder(), &peers).await, [true, false, true, true], "64 by default");
    for (bits, expected) in [
        (0, [true, false, false, false]),
        (32, [true, false, false, true]),
        (63, [true, false, false, true]),
        (64, [true, false, true, true]),
        (128, [true; 4]),
        (255, [true; 4]),
    ] {
        let builder = Server::builder().per_ip_prefix(bits);
        assert_eq!(served(builder, &peers).await, expected, "{bits}");
    }
    let mapped = ["10.0.0.1", "::ffff:10.0.0.1", "::ffff:10.0.0.2", "10.0.0.3"];
    assert_eq!(served(Server::builder(), &mapped).await, [true, false, true, true]);
}

#[tokio::test]
pub(crate) async fn max_handshakes() {
    let (dialer, listener) = in_memory();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let may_end = Arc::new(Semaphore::new(0));
    let hook = {
        let (running, most, may_end) = (running.clone(), most.clone(), may_end.clone());
        async move |accepted| {
            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            may_end.acquire().await.unwrap().forget();
            running.fetch_sub(1, SeqCst);
            Ok(accepted)
        }
    };
    let builder = Server::builder().max_handshakes(3).handshake(hook);
    let server = Running::start(builder, listener, reply(upper));
    let mut peers: Vec<_> = (0..10).map(|_| dialer.connect(64)).collect();
    while server.server.counters().open < 10 {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.load(SeqCst), 3);
    may_end.add_permits(10);
    for peer in &mut peers {
        assert!(is_served(peer).await);
    }
    assert_eq!(most.load(SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_handshake_is_not_timed() {
    let (dialer, listener) = in_memory();
    let hook = async |accepted| {
        tokio::time::sleep(std::time::Duration::from_secs(9)).await;
        Ok(accepted)
    };
    let builder = Server::builder().max_handshakes(1).handshake(hook);
    let server = Running::start(builder, listener, reply(upper));
    let mut peers: Vec<_> = (0..3).map(|_| dialer.connect(64)).collect();
    for peer in &mut peers {
        assert!(is_served(peer).await, "10 s is the limit for each");
    }
    assert_eq!(server.server.counters().handshake_timeouts, 0);
}
