use std::process::Command;

use crate::peer::{Running, client, output};

fn server() -> Running {
    Running::example("redis_server", &[])
}

#[test]
fn serves_redis_cli() {
    let server = server();
    let cli = |arguments: &[&str], input: &[u8]| {
        output(Command::new("redis-cli").args(["-p", server.port()]).args(arguments), input)
    };
    let Some(said) = cli(&["set", "greeting", "hello world"], b"") else { return };
    assert_eq!(said, "OK\n");
    assert_eq!(cli(&["get", "greeting"], b"").unwrap(), "hello world\n");
    // -x reads the value from stdin.
    let value = "two\r\nlines\0 $5\r\n".repeat(10_000);
    assert_eq!(cli(&["-x", "set", "k"], value.as_bytes()).unwrap(), "OK\n");
    assert_eq!(cli(&["get", "k"], b"").unwrap(), value.clone() + "\n");
    assert_eq!(cli(&["del", "k", "greeting", "nothing"], b"").unwrap(), "2\n");
    assert_eq!(cli(&["get", "k"], b"").unwrap(), "\n");
    assert_eq!(
        cli(&["nosuch\r\nline"], b"").unwrap(),
        "ERR unknown command, or wrong number of arguments\n\n"
    );
    // --pipe sends stdin to the server unchanged.
    let piped: String = (0..1000).map(|n| format!("SET key{n} {n}\r\n")).collect();
    let said = cli(&["--pipe"], piped.as_bytes()).unwrap();
    assert!(said.ends_with("errors: 0, replies: 1000\n"), "{said}");
    assert_eq!(cli(&["get", "key999"], b"").unwrap(), "999\n");
}

#[test]
fn serves_redis_benchmark() {
    let server = server();
    let mut benchmark = Command::new("redis-benchmark");
    benchmark.args(["-p", server.port(), "-t", "set,get", "-n", "20000", "-P", "50", "-d", "100", "--csv"]);
    let Some(said) = output(&mut benchmark, b"") else { return };
    let tests: Vec<&str> = said.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(tests, ["\"SET\"", "\"GET\""]);
    assert_eq!(server.talk().ask("GET key:__rand_int__"), "$100");
}

#[test]
fn serves_the_client_of_the_cookbook() {
    let server = server();
    let run = |arguments: &[&str]| client("redis", &server, arguments);
    assert_eq!(run(&["ECHO", "a\r\nb"]), "\"a\\r\\nb\"\n");
    assert_eq!(run(&["COMMAND", "DOCS"]), "\n");
}

#[test]
fn inline_commands_and_arrays_may_alternate() {
    let server = server();
    let mut talk = server.talk();
    talk.send("set k v\nGET k\r\n\r\n*2\r\n$3\r\nget\r\n$1\r\nk\r\n*0\r\nping\r\n");
    let said: Vec<String> = (0..6).map(|_| talk.line()).collect();
    assert_eq!(said, ["+OK", "$1", "v", "$1", "v", "+PONG"]);
    // Only the line that is too long is refused.
    talk.send("x".repeat(70_000) + "\r\nping\r\n");
    assert_eq!(talk.line(), "-ERR line exceeds the limit of 65536 bytes (max_length)");
    assert_eq!(talk.line(), "+PONG");
}

#[test]
fn malformed_arrays_end_the_session() {
    let server = server();
    let too_many = format!("*65\r\n{}", "$1\r\nx\r\n".repeat(65));
    for broken in [
        &too_many,
        "*-1\r\n",
        "*x\r\n",
        "*+1\r\n$4\r\nPING\r\n",
        "*1\r\n$+4\r\nPING\r\n",
        "*1\r\nPING\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$4\r\nPINGS\r\n",
        "*1\r\n$99999999999\r\n",
        "*2\r\n$4\r\nECHO\r\n$16777217\r\n",
    ] {
        let mut talk = server.talk();
        talk.send(format!("{broken}PING\r\n"));
        assert_eq!(talk.rest(), "-ERR Protocol error\r\n", "{broken:?}");
    }
    // A web page can make a browser send a form to this port.
    let mut talk = server.talk();
    talk.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nset k v\r\n");
    assert!(talk.rest().starts_with("error: "));
    assert_eq!(server.talk().ask("get k"), "$-1");
}
