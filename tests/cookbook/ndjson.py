"""A client of the NDJSON example. Arguments: host, port."""

import json
import socket
import sys

peer = socket.create_connection(sys.argv[1:], timeout=60)
lines = peer.makefile("rw", encoding="utf-8", newline="\n")


def ask(line):
    lines.write(line + "\n")
    lines.flush()
    return json.loads(lines.readline())


bad = 0
for n in range(1000):
    name = "roof \u2028 \N{SNOWMAN}\n" + "x" * (n % 7)  # U+2028 within a string does not end the line
    reading = json.dumps({"sensor": name, "value": n}, ensure_ascii=n % 2 == 0)
    answer = ask(reading)
    assert answer["sensor"] == name and answer["count"] == n // 7 + 1, answer
    if n % 200 == 0:
        assert ask("{bad")["error"] == "not JSON, at byte 2"
        bad += 1
refused = ask("x" * 5000)
assert refused == {"line": 1006, "error": "line exceeds the limit of 4096 bytes (max_length)"}, refused
bad += 1
print(f"1000 readings, {bad} bad lines")
