#!/usr/bin/env bash
# What somebody does who knows only README: from a fresh clone in an empty folder to a running server and client, both programs in a
# package of their own, and the answer to 'why was my message cut?'. Prints when each was reached, and what it took of CPU time.
#
#   docs/first-five-minutes.sh [CLONE FROM]     this repository, unless another is named
set -euo pipefail
from=${1:-$(cd "$(dirname "$0")/.." && pwd)}
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
unset CARGO_TARGET_DIR # a new user has none
cd "$folder"

reached() {
    local ticks
    # Of this shell's children that have ended: user and system time, in hundredths of a second (proc(5)).
    read -r -a ticks <"/proc/$$/stat"
    printf '%4d s, %3d s of CPU: %s\n' "$SECONDS" "$(((ticks[15] + ticks[16]) / 100))" "$1"
}

printf 'load on %s processors before: %s\n' "$(nproc)" "$(cut -d ' ' -f 1-3 /proc/loadavg)"
git clone --quiet "$from" lineframe
cd lineframe
cargo build --quiet
reached 'cloned and built'

# In place of 8083, which may be taken here, any free port.
: >../listening
cargo run -q -- serve 127.0.0.1:0 >../listening 2>../log &
server=$!
until address=$(sed -n 's/^listening //p' ../listening) && [ -n "$address" ]; do
    kill -0 "$server" # it is still there
    sleep 0.1
done
replies=$(printf 'hello\nhow are you?\n' | cargo run -q -- send "$address")
[ "$replies" = $'HELLO\nHOW ARE YOU?' ]
kill -TERM "$server"
wait "$server"
server=
grep -q 'stopped accepted=1 lines=2' ../log
reached 'a server has answered a client, and has stopped'

cd ..
# The commands and the programs as README has them.
sed -n '/^cargo new mine/,/^```$/p' lineframe/README.md | grep -v '^```' >add
programs=0
while IFS= read -r line; do
    case $line in
    '```rust') programs=$((programs + 1)) && into=program-$programs.rs ;;
    '```') into= ;;
    *) [ -z "${into:-}" ] || printf '%s\n' "$line" >>"$into" ;;
    esac
done <lineframe/README.md
[ "$programs" -eq 2 ]
# shellcheck source=/dev/null
. ./add 2>/dev/null
cp ../program-1.rs src/main.rs
[ "$(cargo run -q)" = $'b"hello"\nb"how are you?"\nline of 2 bytes cut before its terminator' ]
reached 'the codec has run in a program of my own'
cp ../program-2.rs src/main.rs
[ "$(cargo run -q)" = $'b"HELLO"\nlines: 1' ]
reached 'so have the server and the client'

cd ../lineframe
cargo run -q --example recv_1024 | tail -n 1
reached 'why a message is cut, seen on a terminal'
