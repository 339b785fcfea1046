#!/usr/bin/env bash
# What `lineframe bench` shows of a server that is frozen for two seconds, in text and as a picture.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --release -p lineframe-cli
lineframe=${CARGO_TARGET_DIR:-target}/release/lineframe

directory=$(mktemp -d)
"$lineframe" serve 127.0.0.1:0 >"$directory/listening" 2>/dev/null &
server=$!
trap 'kill $server; rm -r "$directory"' EXIT
until address=$(sed -n 's/^listening //p' "$directory/listening") && [ -n "$address" ]; do sleep 0.1; done

(sleep 3 && kill -STOP $server && sleep 2 && kill -CONT $server) &
"$lineframe" bench --duration 6s --rate 5000 --svg docs/bench-frozen.svg "$address" |
    sed 's/process [0-9]*/process 1234/' | tee docs/bench-frozen.txt
sed -i 's/127\.0\.0\.1:[0-9]*/127.0.0.1:8083/' docs/bench-frozen.svg
