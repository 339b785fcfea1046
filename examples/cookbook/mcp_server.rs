//! JSON-RPC over stdin and stdout: a Model Context Protocol server with one tool, which counts the
//! lines, words and bytes of a text.
//!
//! ```sh
//! cargo run --example mcp_server <<< '{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}'
//! ```

use std::io;

use lineframe::{Connection, LineError};
use serde::Deserialize;
use serde_json::{Value, json};

/// The limit for a message in bytes. A message that contains a file easily exceeds the default of
/// 64 KiB.
const MAX_MESSAGE: usize = 4 << 20;

/// The protocol revisions that this server supports, newest first.
const REVISIONS: [&str; 2] = ["2025-06-18", "2025-03-26"];

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;

#[derive(Deserialize)]
struct Request {
    /// `None` for a notification, which gets no reply.
    id: Option<Value>,
    method: String,
    #[serde(default)]
    params: Value,
}

struct Refusal(i64, &'static str);

// region: main
#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    // Only protocol messages go to stdout. Everything else goes to stderr.
    let mut conn = Connection::join(tokio::io::stdin(), tokio::io::stdout());
    conn.set_max_length(MAX_MESSAGE);
    while let Some(line) = conn.next_line().await? {
        if let Some(answer) = answer(line) {
            conn.write_line(answer.to_string()).await?;
        }
    }
    Ok(())
}
// endregion

// region: answer
/// Returns the reply to a line, or `None` if the line needs no reply.
fn answer(line: Result<impl AsRef<[u8]>, LineError>) -> Option<Value> {
    let parsed = line
        .map_err(|bad| bad.to_string())
        .and_then(|line| serde_json::from_slice::<Value>(line.as_ref()).map_err(|error| error.to_string()));
    let message = match parsed {
        Ok(message) => message,
        Err(why) => return Some(error(Value::Null, PARSE_ERROR, &why)),
    };
    let Ok(Request { id, method, params }) = Request::deserialize(&message) else {
        // Ignore replies: they have a result or an error, and no `method`. This server sends no
        // requests.
        let is_reply = message.get("result").or(message.get("error")).is_some();
        return (!is_reply).then(|| error(Value::Null, INVALID_REQUEST, "not a request"));
    };
    let id = id?;
    Some(match call(&method, &params) {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(Refusal(code, why)) => error(id, code, why),
    })
}
// endregion

fn error(id: Value, code: i64, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}

fn call(method: &str, params: &Value) -> Result<Value, Refusal> {
    match method {
        "initialize" => {
            let asked = params["protocolVersion"].as_str();
            let revision = REVISIONS.into_iter().find(|known| asked == Some(known)).unwrap_or(REVISIONS[0]);
            Ok(json!({
                "protocolVersion": revision,
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "count", "version": env!("CARGO_PKG_VERSION")},
            }))
        }
        "ping" => Ok(json!({})),
        "tools/list" => Ok(json!({"tools": [{
            "name": "count",
            "description": "Counts the lines, words and bytes of a text",
            "inputSchema": {
                "type": "object",
                "properties": {"text": {"type": "string"}},
                "required": ["text"],
            },
        }]})),
        "tools/call" if params["name"] == "count" => {
            let text = params["arguments"]["text"].as_str();
            let text = text.ok_or(Refusal(INVALID_PARAMS, "the tool takes a text"))?;
            let (lines, words) = (text.lines().count(), text.split_whitespace().count());
            let said = format!("{lines} lines, {words} words, {} bytes", text.len());
            Ok(json!({"content": [{"type": "text", "text": said}]}))
        }
        "tools/call" => Err(Refusal(INVALID_PARAMS, "no such tool")),
        _ => Err(Refusal(METHOD_NOT_FOUND, "no such method")),
    }
}
