use std::process::Command;

use crate::peer::{Running, output, python, script};

fn server() -> Running {
    Running::example("ndjson", &[])
}

#[test]
fn python_gets_replies_after_bad_lines() {
    let Some(mut python) = python("json") else { return };
    let server = server();
    let printed = output(python.arg(script("ndjson.py")).args(["127.0.0.1", server.port()]), b"");
    assert_eq!(printed.as_deref(), Some("1000 readings, 6 bad lines\n"));
}

#[test]
fn jq_writes_requests_and_reads_replies() {
    let make = r#"range(1000) | {sensor: "s\(. % 10)", value: .}"#;
    let Some(readings) = output(Command::new("jq").args(["-nc", make]), b"") else { return };
    let server = server();
    let mut talk = server.talk();
    let mut answers = String::new();
    // Half of the lines are pipelined. The others wait for the previous reply.
    let lines: Vec<&str> = readings.lines().collect();
    talk.send(lines[..500].join("\n") + "\n");
    for _ in 0..500 {
        answers += &(talk.line() + "\n");
    }
    for line in &lines[500..] {
        answers += &(talk.ask(line) + "\n");
    }
    talk.end();
    assert_eq!(talk.rest(), "");
    let count = "[length, (map(select(.count == 100)) | sort_by(.sensor) | map(.mean))]";
    let counted = output(Command::new("jq").args(["-sc", count]), answers.as_bytes());
    assert_eq!(counted.as_deref(), Some("[1000,[495,496,497,498,499,500,501,502,503,504]]\n"));
}

#[test]
fn a_line_cut_in_a_number_is_refused() {
    let server = server();
    let mut talk = server.talk();
    talk.send("{\"sensor\":\"a\",\"value\":12}\n{\"sensor\":\"a\",\"value\":12}");
    talk.end();
    assert_eq!(talk.line(), r#"{"sensor":"a","count":1,"mean":12.0}"#);
    assert_eq!(talk.line(), r#"{"line":2,"error":"line of 25 bytes cut before its terminator"}"#);
    assert_eq!(talk.rest(), "");
}
