//! JSON-RPC with a child process: starts a server of the Model Context Protocol and calls one of
//! its tools.
//!
//! ```sh
//! cargo build --example mcp_server
//! cargo run --example mcp_client -- count '{"text": "one two"}' target/debug/examples/mcp_server
//! ```

use std::error::Error;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use lineframe::Connection;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const MAX_MESSAGE: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

// region: client
struct Client {
    child: Child,
    conn: Connection,
    last_id: u64,
}

impl Client {
    fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let (Some(stdout), Some(stdin)) = (child.stdout.take(), child.stdin.take()) else {
            return Err(io::Error::other("the child has no pipes"));
        };
        let mut conn = Connection::join(stdout, stdin);
        conn.set_max_length(MAX_MESSAGE);
        Ok(Self { child, conn, last_id: 0 })
    }

    /// Returns the result, or the error that the server sent. After a timeout or a dropped call,
    /// the next call is safe: a late reply has a different id.
    async fn call(&mut self, method: &str, params: Value) -> io::Result<Result<Value, Value>> {
        self.last_id += 1;
        let id = self.last_id;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.conn.write_line(request.to_string()).await?;
        timeout(PATIENCE, self.reply(id)).await?
    }

    async fn reply(&mut self, id: u64) -> io::Result<Result<Value, Value>> {
        while let Some(line) = self.conn.next_line().await? {
            // Some servers print other text to stdout, mostly at startup. Skip lines that are not
            // JSON.
            let Ok(mut message) = serde_json::from_slice::<Value>(&line?) else { continue };
            match (message["method"].as_str(), &message["id"]) {
                (Some(_), Value::Null) => {} // a notification, such as progress or a log message
                (Some("ping"), asked) => {
                    let pong = json!({"jsonrpc": "2.0", "id": asked, "result": {}});
                    self.conn.write_line(pong.to_string()).await?;
                }
                (Some(_), asked) => {
                    let error = json!({"code": -32601, "message": "this client has no methods"});
                    let refusal = json!({"jsonrpc": "2.0", "id": asked, "error": error});
                    self.conn.write_line(refusal.to_string()).await?;
                }
                (None, answered) if *answered != id => {} // a late reply to an earlier call
                (None, _) if message["error"].is_null() => return Ok(Ok(message["result"].take())),
                (None, _) => return Ok(Err(message["error"].take())),
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    async fn notify(&mut self, method: &str) -> io::Result<()> {
        Ok(self.conn.send_line(json!({"jsonrpc": "2.0", "method": method}).to_string()).await?)
    }

    /// Closes the child's stdin, which tells it to exit, and waits until it has exited.
    async fn stop(mut self) -> io::Result<()> {
        self.conn.shutdown().await?;
        let status = timeout(PATIENCE, self.child.wait()).await??;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("the server exited with {status}")))
        }
    }
}
// endregion

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: mcp_client TOOL ARGUMENTS COMMAND [WORD]..";
    let mut words = std::env::args().skip(1);
    let (Some(tool), Some(arguments), Some(program)) = (words.next(), words.next(), words.next()) else {
        return Err(usage.into());
    };
    let arguments: Value = serde_json::from_str(&arguments)?;

    let mut client = Client::start(Command::new(program).args(words))?;
    let about = json!({"name": "mcp_client", "version": env!("CARGO_PKG_VERSION")});
    let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": about});
    client.call("initialize", hello).await?.map_err(|error| error.to_string())?;
    client.notify("notifications/initialized").await?;
    let called = client.call("tools/call", json!({"name": tool, "arguments": arguments})).await?;
    client.stop().await?;

    let result = called.map_err(|error| error.to_string())?;
    for content in result["content"].as_array().into_iter().flatten() {
        println!("{}", content["text"].as_str().unwrap_or("(not text)"));
    }
    if result["isError"] == true { Err("the tool failed".into()) } else { Ok(()) }
}
