use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use crate::peer::{Running, Talk, output, python, script};

fn server() -> Running {
    Running::example("chat", &[])
}

fn join(mut talk: Talk, nick: &str) -> Talk {
    assert_eq!(talk.ask(&format!("NICK {nick}")), format!(":chat.example 001 {nick} :Welcome"));
    assert_eq!(talk.line(), format!(":chat.example 422 {nick} :No message of the day"));
    assert_eq!(talk.ask("JOIN #rust"), format!(":{nick}!{nick}@chat.example JOIN #rust"));
    assert_eq!(talk.line(), format!(":chat.example 366 {nick} #rust :End of names"));
    talk
}

#[test]
fn serves_an_irc_client_library() {
    let Some(mut python) = python("irc.client") else { return };
    let server = server();
    let printed = output(python.arg(script("chat.py")).args(["127.0.0.1", server.port()]), b"");
    assert_eq!(printed.as_deref(), Some("ann said hello, world\nben said 世界 to you too\n"));
}

#[test]
fn slow_clients_delay_nobody_and_learn_what_they_missed() {
    const MESSAGES: usize = 12_000;
    const ROUND: usize = 200;
    let server = server();
    let address: SocketAddr = server.address.parse().unwrap();
    // A small receive buffer: by default the system would buffer megabytes for the slow client.
    let slow = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    slow.set_recv_buffer_size(4096).unwrap();
    slow.connect(&address.into()).unwrap();
    let mut slow = join(Talk::over(slow.into()), "slow");
    let mut fast = join(server.talk(), "fast");
    let mut ann = join(server.talk(), "ann");

    // Each round waits until the fast client has received all messages of the round.
    let text = "x".repeat(470);
    let line = |n: usize| format!(":ann!ann@chat.example PRIVMSG #rust :{n} {text}");
    for first in (0..MESSAGES).step_by(ROUND) {
        let round = first..first + ROUND;
        ann.send(round.clone().map(|n| format!("PRIVMSG #rust :{n} {text}\r\n")).collect::<String>());
        round.for_each(|n| assert_eq!(fast.line(), line(n)));
    }

    let (mut next, mut missed) = (0, 0);
    while next < MESSAGES {
        // On a machine so slow that this took 30 s, the server has closed the connection
        // (`write_timeout`).
        let Some(said) = slow.try_line() else { return };
        match said.strip_prefix(":chat.example NOTICE * :").and_then(|notice| notice.split_once(' ')) {
            Some((count, "messages were too many for this connection")) => {
                let count: usize = count.parse().unwrap();
                missed += count;
                next += count;
            }
            _ => {
                assert_eq!(said, line(next));
                next += 1;
            }
        }
    }
    assert_eq!(next, MESSAGES);
    // The system and the server buffer a limited number of messages.
    assert!(missed > 0, "the slow client missed nothing: raise MESSAGES");
}

#[test]
fn messages_cannot_inject_commands() {
    let server = server();
    let (mut ann, mut ben) = (join(server.talk(), "ann"), join(server.talk(), "ben"));
    for injected in ["hi\r:chat.example KILL ben", "hi\0there"] {
        let refused = ann.ask(&format!("PRIVMSG #rust :{injected}"));
        assert_eq!(refused, ":chat.example NOTICE * :not UTF-8, or with a CR or NUL in it");
    }
    let long = "x".repeat(511);
    assert_eq!(ann.ask(&long), ":chat.example 417 * :Input line was too long");
    ann.send("PRIVMSG #rust :hello\r\n");
    assert_eq!(ben.line(), ":ann!ann@chat.example PRIVMSG #rust :hello");

    assert_eq!(server.talk().ask("NICK ann"), ":chat.example 433 * ann :Nickname is already in use");
    assert_eq!(server.talk().ask("NICK a!b@c"), ":chat.example 432 * * :Erroneous nickname");
    assert_eq!(ann.ask("QUIT"), "ERROR :bye");
    assert_eq!(ann.rest(), "");
}
