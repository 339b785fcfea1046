"""Prints the results of asyncio's StreamReader.readline for a sequence of reads.

tests/peers/mod.rs describes the input and the output. The coroutine is resumed by hand, so that it
gets the next read only when it waits for one.
"""

import asyncio
import sys


def events(loop, limit, *reads):
    reader = asyncio.StreamReader(loop=loop, **({} if limit == "-" else {"limit": int(limit)}))
    reads = [bytes.fromhex(read) for read in reads]
    while True:
        line = reader.readline()
        try:
            while True:
                line.send(None)
                if reads:
                    reader.feed_data(reads.pop(0))
                else:
                    yield f"held={len(reader._buffer)}"
                    yield "eof"
                    reader.feed_eof()
        except StopIteration as done:
            if done.value:
                yield f"line={done.value.hex()}"
            else:
                return
        except ValueError:
            yield "error"


def main():
    loop = asyncio.new_event_loop()
    for row in sys.stdin:
        task, *words = row.split()
        print(*(events(loop, *words) if task == "read" else ["-"]))
    loop.close()


main()
