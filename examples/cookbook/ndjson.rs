//! JSON over TCP, one value per line. The server answers each sensor reading with the mean of all
//! readings of that sensor.
//!
//! ```sh
//! cargo run --example ndjson -- 127.0.0.1:8083
//! jq -nc '{sensor: "roof", value: (20.5, 21.5)}' | nc -N 127.0.0.1 8083
//! ```

use std::collections::HashMap;
use std::io;

use lineframe::{Bind, Connection, LineCodec, Server};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

/// The number of sensors per connection, which bounds the memory that a connection can use.
const MAX_SENSORS: usize = 1000;

#[derive(Deserialize)]
struct Reading {
    sensor: String,
    value: f64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Mean { sensor: String, count: u32, mean: f64 },
    Refused { line: u64, error: String },
}

// region: session
async fn session(mut conn: Connection) -> io::Result<()> {
    let mut means = Means::default();
    let mut number = 0;
    while let Some(line) = conn.next_line().await? {
        number += 1;
        let answer = match line {
            Ok(line) if line.is_empty() => continue, // NDJSON allows readers to skip empty lines
            Ok(line) => means.answer(&line),
            Err(bad) => Err(bad.to_string()),
        };
        let answer = answer.unwrap_or_else(|error| Answer::Refused { line: number, error });
        conn.write_line(serde_json::to_vec(&answer)?).await?;
    }
    Ok(())
}
// endregion

/// The number of readings and their mean, by sensor.
#[derive(Default)]
struct Means(HashMap<String, (u32, f64)>);

impl Means {
    // region: answer
    fn answer(&mut self, line: &[u8]) -> Result<Answer, String> {
        let Reading { sensor, value } = serde_json::from_slice(line).map_err(|error| {
            // Not `error.to_string()`, which quotes input from the peer.
            let what = if error.classify() == Category::Data { "not a reading" } else { "not JSON" };
            format!("{what}, at byte {}", error.column())
        })?;
        if self.0.len() == MAX_SENSORS && !self.0.contains_key(&sensor) {
            return Err(format!("more than {MAX_SENSORS} sensors"));
        }
        let (count, mean) = self.0.entry(sensor.clone()).or_default();
        *count += 1;
        *mean += (value - *mean) / f64::from(*count);
        Ok(Answer::Mean { sensor, count: *count, mean: *mean })
    }
    // endregion
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8083".into());
    let listener = Bind::new().tcp(&address).await?;
    println!("listening {}", listener.local_addr()?);
    // A reply contains the sensor's name and more, so it may be longer than the request.
    let codec = LineCodec::builder().max_length(4096).max_encoded_length(8192).build();
    let server = Server::builder().codec(codec).refuse_http_and_tls(true).build();
    println!("{:?}", server.serve_with_shutdown(listener, session, tokio::signal::ctrl_c()).await);
    Ok(())
}
