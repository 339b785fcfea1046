//! Runs the examples and checks their output.

mod example;

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde::Deserialize;

/// Runs an example, which must succeed, and returns its stdout.
fn run(example: &str, arguments: &[&str]) -> String {
    let output = Command::new(example::path(example)).args(arguments).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{example}: {}\n{stdout}{stderr}", output.status);
    stdout
}

#[derive(Deserialize)]
struct Recv {
    sends: Vec<Vec<String>>,
    reads: Vec<Read>,
    frames: Vec<Frame>,
}

#[derive(Deserialize)]
struct Read {
    pieces: Vec<Piece>,
    verdict: String,
    right: bool,
}

#[derive(Deserialize)]
struct Piece {
    message: usize,
    length: usize,
    start: usize,
    end: usize,
}

#[derive(Deserialize)]
struct Frame {
    line: String,
    first_read: usize,
    last_read: usize,
}

#[test]
fn recv_1024_shows_merged_and_cut_messages() {
    let Recv { sends, reads, frames } = serde_json::from_str(&run("recv_1024", &["--json"])).unwrap();
    let sent = sends.concat();

    // Each read returns 1 to 1024 bytes. Together the reads return the whole stream.
    let length = |read: &Read| read.pieces.iter().map(|piece| piece.end - piece.start).sum::<usize>();
    assert!(reads.iter().all(|read| (1..=1024).contains(&length(read))));
    let pieces = || reads.iter().flat_map(|read| &read.pieces);
    let mut rest = pieces();
    for (number, message) in (1..).zip(&sent) {
        let mut at = 0;
        while at <= message.len() {
            let piece = rest.next().unwrap();
            assert_eq!((piece.message, piece.length, piece.start), (number, message.len(), at));
            at = piece.end;
        }
        assert_eq!(at, message.len() + 1);
    }
    assert!(rest.next().is_none());

    let merged = reads.iter().filter(|read| read.pieces.len() > 1).count();
    let cut = pieces().filter(|piece| piece.end - piece.start <= piece.length).count();
    let verdicts: Vec<_> = reads.iter().map(|read| read.verdict.as_str()).collect();
    assert_eq!((sent.len(), reads.len(), merged, cut), (8, 9, 2, 6), "{verdicts:#?}");
    assert_eq!(
        verdicts,
        [
            "right, by luck",
            "messages 2-4 merged",
            "message 5 + first 79 of 2480 bytes of 6",
            "1024 bytes out of message 6",
            "1024 bytes out of message 6",
            "the end of message 6",
            "first 1024 of 1500 bytes of message 7",
            "the end of message 7",
            "right, by luck",
        ]
    );
    for Read { pieces, right, verdict } in &reads {
        assert_eq!(*right, verdict == "right, by luck");
        assert_eq!(*right, pieces.len() == 1 && pieces[0].end - pieces[0].start == pieces[0].length + 1);
    }

    assert!(frames.iter().map(|frame| &frame.line).eq(&sent));
    for (number, frame) in (1..).zip(&frames) {
        let read_holds = |read: &Read| read.pieces.iter().any(|piece| piece.message == number);
        let first = reads.iter().position(read_holds).unwrap() + 1;
        let last = reads.iter().rposition(read_holds).unwrap() + 1;
        assert_eq!((frame.first_read, frame.last_read), (first, last), "frame {number}");
    }
}

#[test]
fn recv_1024_output_fits_80_columns() {
    let picture = run("recv_1024", &[]);
    assert_eq!(
        picture.lines().last(),
        Some("8 messages sent; recv(1024): 9 pieces, 2 right by luck; LineCodec: 8, all right"),
        "{picture}"
    );
    for line in [
        "  read 2      63 |234|                  messages 2-4 merged",
        "  read 3    1024 |55555555555555555566> message 5 + first 79 of 2480 bytes of 6",
        "  read 6     354 <6666666|              the end of message 6",
    ] {
        assert!(picture.lines().any(|shown| shown == line), "{line:?} is missing in\n{picture}");
    }
    assert!(picture.lines().all(|line| line.chars().count() <= 80), "{picture}");
    assert!(!picture.contains('\x1b'), "colours without a terminal");
}

#[test]
fn lines_prints_what_its_comments_say() {
    let lines = "b\"hello\"\nb\"how are you?\"\nline of 2 bytes cut before its terminator\n";
    assert_eq!(run("lines", &[]), lines);
}

/// Kills the process if the test fails before its end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn server_answers_and_ends_on_ctrl_c() {
    let mut command = Command::new(example::path("server"));
    let mut server = Running(command.arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap());
    let mut stdout = BufReader::new(server.0.stdout.take().unwrap());
    let mut listening = String::new();
    stdout.read_line(&mut listening).unwrap();
    let address = listening.trim().strip_prefix("listening ").unwrap();

    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"hello\n").unwrap();
    let mut replies = BufReader::new(client);
    let mut reply = String::new();
    replies.read_line(&mut reply).unwrap();
    assert_eq!(reply, "HELLO\n");

    // Other systems have no signal that a test can send to one process.
    if cfg!(unix) {
        let id = server.0.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        assert!(server.0.wait().unwrap().success());
        reply.clear();
        assert_eq!(replies.read_line(&mut reply).unwrap(), 0, "{reply:?} after the end");
    }
}

#[test]
fn framed_example_answers_every_line() {
    let replies = "HELLO\nHOW ARE YOU?\nerror: line of 2 bytes cut before its terminator\n";
    assert_eq!(run("framed", &[]), replies);
}

#[test]
fn pictures_match_example_and_tables() {
    let drawn = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/pictures/run"))
        .arg("--check")
        .env("RECV_1024", example::path("recv_1024"))
        .output();
    match drawn {
        Ok(drawn) if drawn.status.code() != Some(127) => {
            assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
        }
        // `eprintln!` would be hidden, because the test passes.
        _ => _ = writeln!(io::stderr(), "skipped docs/pictures/run --check: python3 is not installed"),
    }
}

#[test]
fn embed_example_answers_every_command() {
    // The example checks every answer itself. This test checks that the example reached its end.
    let dialogue = run("embed", &[]);
    for exchange in [
        "> set k 5\\r\\na\\r\\nbc\n< STORED\n> get k\n< VALUE 5\n< a\\r\\nbc\n< \n< END\n",
        "\n> show k\n< SERVER_ERROR line contains a terminator, or part of one, ",
        "...\n< SERVER_ERROR block of 2000 bytes exceeds the limit of 1000 bytes (max_block_length)\n",
        "\n> set k 3\\r\\nabcdef\n< CLIENT_ERROR bad data chunk\n",
        "...\n< error: line exceeds the limit of 80 bytes (max_length)\n",
        "\n> get\\nk\n< error: line of 5 bytes with a CR or LF that is not part of a CRLF\n",
    ] {
        assert!(dialogue.contains(exchange), "{exchange:?} is missing in\n{dialogue}");
    }
    assert!(dialogue.ends_with("> get k\n< VALUE 5\n< a\\r\\nbc\n< \n< END\n"), "{dialogue}");
}
