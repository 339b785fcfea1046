use crate::peer::{Running, answering, client, within};

#[path = "../../examples/cookbook/redis.rs"]
#[allow(dead_code, unreachable_pub)]
mod program;

use self::program::{Redis, Reply};

fn server() -> Option<Running> {
    Running::server("redis-server", "Ready to accept connections", |port| {
        ["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()].map(String::from).into()
    })
}

async fn replies<A: AsRef<[u8]>>(server: &Running, commands: &[&[A]]) -> std::io::Result<Vec<Reply>> {
    within(async { Redis::connect(&server.address).await?.pipeline(commands).await }).await
}

fn bulk(value: impl AsRef<[u8]>) -> Reply {
    Reply::Bulk(Some(value.as_ref().to_owned().into()))
}

#[tokio::test]
async fn every_kind_of_reply_is_read() {
    let Some(server) = server() else { return };
    let nested =
        "return {1, {'a\\r\\nb', {}, redis.status_reply('well')}, redis.error_reply('ERR no'), false}";
    let got = replies(
        &server,
        &[
            &["SET", "k", ""],
            &["GET", "k"],
            &["GET", "nothing"],
            &["STRLEN", "k"],
            &["NOSUCH"],
            &["BLPOP", "nothing", "0.001"],
            &["EVAL", nested, "0"],
        ],
    )
    .await
    .unwrap();
    assert!(
        matches!(&got[4], Reply::Error(said) if said.starts_with(b"ERR unknown command")),
        "{:?}",
        got[4]
    );
    assert_eq!(got[..4], [Reply::Simple("OK".into()), bulk(""), Reply::Bulk(None), Reply::Integer(0)]);
    let within = vec![bulk("a\r\nb"), Reply::Array(Some(vec![])), Reply::Simple("well".into())];
    let nested =
        vec![Reply::Integer(1), Reply::Array(Some(within)), Reply::Error("ERR no".into()), Reply::Bulk(None)];
    assert_eq!(got[5..], [Reply::Array(None), Reply::Array(Some(nested))]);
}

#[tokio::test]
async fn long_pipelines_do_not_deadlock() {
    const VALUES: usize = 20_000;
    let Some(server) = server() else { return };
    // 20 MB in each direction on one connection, which is more than all buffers on the way hold.
    // Redis buffers replies that the client does not read. The server of the cookbook stops
    // reading.
    let value = |n: usize| (n..n + 1000).map(|byte| byte as u8).collect::<Vec<u8>>();
    let commands: Vec<[Vec<u8>; 2]> = (0..VALUES).map(|n| ["ECHO".into(), value(n)]).collect();
    let commands: Vec<&[Vec<u8>]> = commands.iter().map(|command| &command[..]).collect();
    for server in [&server, &Running::example("redis_server", &[])] {
        let got = replies(server, &commands).await.unwrap();
        assert_eq!(got.len(), VALUES);
        for (n, reply) in got.into_iter().enumerate() {
            assert_eq!(reply, bulk(value(n)), "{n}");
        }
    }
    // A single value of 20 MB.
    let large = value(0).repeat(20_000);
    let got = replies(&server, &[&[&b"SET"[..], b"k", &large], &[b"GET", b"k"]]).await.unwrap();
    assert_eq!(got, [Reply::Simple("OK".into()), bulk(large)]);
}

#[tokio::test]
async fn pipelines_continue_after_error_replies() {
    let Some(server) = server() else { return };
    let mut redis = Redis::connect(&server.address).await.unwrap();
    for _ in 0..3 {
        let got = within(redis.pipeline(&[&["HGET"], &["PING"]])).await.unwrap();
        assert!(matches!(got[..], [Reply::Error(_), Reply::Simple(_)]), "{got:?}");
    }
    assert!(within(redis.pipeline(&[&["EVAL", "return {{{{{{{{{{1}}}}}}}}}}", "0"]])).await.is_err());
    // The next pipeline must not read the rest of this one's replies.
    let refused = within(redis.pipeline(&[&["PING"]])).await.unwrap_err();
    assert!(refused.to_string().contains("did not finish"), "{refused}");
}

#[tokio::test]
async fn malformed_replies_are_errors() {
    for reply in [
        "$3\r\nabcd\r\n",
        "$3\r\nabc\n\r\n",
        "$3\r\nab",
        "$x\r\n",
        "$-2\r\n",
        "$67108865\r\n",
        "*2\r\n+OK\r\n",
        "*-2\r\n",
        ":1x\r\n",
        "+OK",
        "+O\nK\r\n",
        "?\r\n",
        "\r\n",
    ] {
        let mut redis = Redis::connect(&answering(reply)).await.unwrap();
        assert!(within(redis.pipeline(&[&["PING"]])).await.is_err(), "{reply:?}");
    }
}

#[test]
fn the_program_prints_replies() {
    let Some(server) = server() else { return };
    let run = |arguments: &[&str]| client("redis", &server, arguments);
    assert_eq!(run(&["RPUSH", "list", "one", "two\r\nlines"]), "(integer) 2\n");
    assert_eq!(run(&["LRANGE", "list", "0", "-1"]), "\"one\"\n\"two\\r\\nlines\"\n");
    assert_eq!(run(&["GET", "nothing"]), "(nil)\n");
    assert_eq!(
        run(&["GET", "list"]),
        "(error) WRONGTYPE Operation against a key holding the wrong kind of value\n"
    );
}
