use std::io;
use std::net::TcpListener;
use std::time::Duration;

use tokio::time::timeout;

use crate::peer::{Running, answering, client, within};

#[path = "../../examples/cookbook/memcached.rs"]
#[allow(dead_code, unreachable_pub)]
mod program;

use self::program::{Found, Memcached};

fn server() -> Option<Running> {
    let words = "-u nobody -vv -l 127.0.0.1 -U 0 -p";
    Running::server("memcached", "server listening", |port| {
        words.split(' ').map(String::from).chain([port.to_string()]).collect()
    })
}

async fn connected(server: &Running) -> Memcached {
    Memcached::connect(&server.address).await.unwrap()
}

#[tokio::test]
async fn values_of_any_bytes_round_trip() {
    let Some(server) = server() else { return };
    let mut memcached = connected(&server).await;
    let values: [(&str, Vec<u8>); 5] = [
        ("empty", vec![]),
        ("lines", b"\r\nEND\r\nVALUE lines 0 1\r\n\r\n".into()),
        ("all", (0..=255).collect()),
        ("large", (0..1_000_000).map(|n| n as u8).collect()),
        ("\u{e9}", b"\r".into()),
    ];
    for (flags, (key, value)) in (0..).zip(&values) {
        assert_eq!(within(memcached.set(key, flags, value)).await.unwrap(), "STORED");
    }
    let keys = ["nothing", "empty", "lines", "all", "nothing", "large", "\u{e9}"];
    let found = within(memcached.get(&keys)).await.unwrap();
    let stored = (0..).zip(values).map(|(flags, (key, value))| Found {
        key: key.into(),
        flags,
        cas: None,
        value: value.into(),
    });
    assert_eq!(found, stored.collect::<Vec<_>>());
    assert_eq!(within(memcached.get(&["nothing"])).await.unwrap(), []);
}

#[tokio::test]
async fn cas_fails_after_another_write() {
    let Some(server) = server() else { return };
    let (mut one, mut other) = (connected(&server).await, connected(&server).await);
    within(one.set("k", 7, b"first")).await.unwrap();
    let read = within(one.gets(&["k"])).await.unwrap().remove(0);
    let cas = read.cas.expect("gets returns it");
    assert_eq!(within(other.cas("k", 7, cas, b"second")).await.unwrap(), "STORED");
    assert_eq!(within(one.cas("k", 7, cas, b"third")).await.unwrap(), "EXISTS");
    assert_eq!(within(one.cas("nothing", 7, cas, b"third")).await.unwrap(), "NOT_FOUND");
    let found = within(one.gets(&["k"])).await.unwrap().remove(0);
    assert_eq!((&found.value[..], found.flags), (&b"second"[..], 7));
    assert_ne!(found.cas, read.cas);
}

#[tokio::test]
async fn the_connection_survives_refusals() {
    let Some(server) = server() else { return };
    let mut memcached = connected(&server).await;
    let too_large = within(memcached.set("k", 0, &vec![b'x'; 2 << 20])).await.unwrap_err();
    assert_eq!(too_large.to_string(), "memcached answered: SERVER_ERROR object too large for cache");
    let long = "k".repeat(251);
    for key in ["", "two words", "k 0 0 1\r\nx\r\nflush_all", "tab\t", "line\n", "c1\u{85}", &long] {
        let refused = within(memcached.set(key, 0, b"value")).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{key:?}");
        assert!(within(memcached.get(&["k", key])).await.is_err(), "{key:?}");
    }
    let key = &long[1..];
    assert_eq!(within(memcached.set(key, 0, b"value")).await.unwrap(), "STORED");
    assert_eq!(within(memcached.get(&[key])).await.unwrap()[0].value, "value");
}

#[tokio::test]
async fn calls_after_a_dropped_call_are_refused() {
    // A server that never replies.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut memcached = Memcached::connect(&silent.local_addr().unwrap().to_string()).await.unwrap();
    assert!(timeout(Duration::ZERO, memcached.get(&["k"])).await.is_err());
    let refused = within(memcached.get(&["other"])).await.unwrap_err();
    assert!(refused.to_string().contains("did not finish"), "{refused}");
}

#[tokio::test]
async fn malformed_replies_are_errors() {
    for reply in [
        "VALUE k 0 3\r\nabcd\r\nEND\r\n",
        "VALUE k 0 3\r\nab",
        "VALUE k 0 3\r\nabc\r\n",
        "VALUE k 0 1048577\r\n",
        "VALUE k 0 -1\r\n",
        "VALUE k 0\r\n",
        "SERVER_ERROR out of memory\r\n",
        "END\n",
    ] {
        let mut memcached = Memcached::connect(&answering(reply)).await.unwrap();
        assert!(within(memcached.get(&["k"])).await.is_err(), "{reply:?}");
        // The rest of the reply may still arrive, so the next call fails too.
        assert!(within(memcached.get(&["k"])).await.is_err(), "{reply:?}");
    }
}

#[test]
fn the_program_runs_all_commands() {
    let Some(server) = server() else { return };
    let run = |arguments: &[&str]| client("memcached", &server, arguments);
    assert_eq!(run(&["set", "greeting", "hello\nworld"]), "STORED\n");
    assert_eq!(run(&["get", "greeting", "nothing"]), "greeting: hello\\nworld\n");
    let got = run(&["gets", "greeting"]);
    let cas = got.strip_prefix("greeting (").and_then(|got| got.split_once(')')).unwrap().0;
    assert_eq!(run(&["cas", "greeting", cas, "hello"]), "STORED\n");
    assert_eq!(run(&["cas", "greeting", cas, "hello"]), "EXISTS\n");
}
