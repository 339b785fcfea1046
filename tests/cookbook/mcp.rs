use std::process::Command;

use serde_json::{Value, json};

use crate::example;
use crate::peer::{output, python, script};

#[test]
fn the_python_sdk_calls_the_server() {
    let Some(mut python) = python("mcp") else { return };
    let printed = output(python.arg(script("mcp_client.py")).arg(example::path("mcp_server")), b"");
    assert_eq!(printed.as_deref(), Some("count; 2 lines, 3 words, 1000012 bytes; no such tool\n"));
}

#[test]
fn the_client_calls_a_python_sdk_server() {
    let Some(python) = python("mcp") else { return };
    let call = |tool: &str, arguments: Value| {
        let mut client = Command::new(example::path("mcp_client"));
        client.args([tool, &arguments.to_string()]).arg(python.get_program()).arg(script("mcp_server.py"));
        client
    };
    // The server first prints a line that is not a message.
    let said = output(&mut call("add", json!({"a": 1, "b": 2})), b"");
    assert_eq!(said.as_deref(), Some("3\n"));
    let text = "two\nlines \u{2028} and \r\n more";
    let said = output(&mut call("repeat", json!({"text": text, "times": 20_000})), b"");
    assert_eq!(said, Some(text.repeat(20_000) + "\n"));
    let failed = call("divide", json!({"a": 1, "b": 0})).output().unwrap();
    assert!(!failed.status.success());
}

/// Returns the server's replies to these lines.
fn answers(lines: &[&str]) -> Vec<Value> {
    let mut server = Command::new(example::path("mcp_server"));
    let printed = output(&mut server, (lines.join("\n") + "\n").as_bytes()).unwrap();
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn only_requests_and_bad_lines_get_replies() {
    let long = "x".repeat((4 << 20) + 1);
    let answers = answers(&[
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
        "{bad",
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":"two","method":"resources/list"}"#,
        r#"{"jsonrpc":"2.0","id":9,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":3}"#,
        &long,
        r#"{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"count","arguments":{}}}"#,
        r#"{"jsonrpc":"2.0","id":5,"method":"initialize","params":{"protocolVersion":"2025-03-26"}}"#,
        r#"{"jsonrpc":"2.0","id":6,"method":"initialize","params":{"protocolVersion":"1999-01-01"}}"#,
    ]);
    let summary: Vec<Value> = answers
        .iter()
        .map(|answer| {
            assert_eq!(answer["jsonrpc"], "2.0");
            let what = [&answer["error"]["code"], &answer["result"]["protocolVersion"], &answer["result"]];
            json!([answer["id"], what.into_iter().find(|what| !what.is_null())])
        })
        .collect();
    assert_eq!(
        Value::from(summary),
        json!([
            [1, {}],
            [null, -32700],
            ["two", -32601],
            [null, -32600],
            [null, -32700],
            [4, -32602],
            [5, "2025-03-26"],
            [6, "2025-06-18"]
        ])
    );
}
