"""Two clients of the irc library talk in a channel. Arguments: host, port."""

import sys
import time

import irc.client

reactor = irc.client.Reactor()
ann, ben = reactor.server(), reactor.server()
said = []


def endofnames(connection, event):
    """The server sends this when the client has joined the channel."""
    if connection is ann:
        ben.connect(sys.argv[1], int(sys.argv[2]), "ben")
    else:
        ann.privmsg("#talk", "hello, world")


def pubmsg(connection, event):
    said.append(f"{event.source.nick} said {event.arguments[0]}")
    if connection is ben:
        ben.privmsg("#talk", "世界 to you too")


reactor.add_global_handler("welcome", lambda connection, event: connection.join("#talk"))
reactor.add_global_handler("endofnames", endofnames)
reactor.add_global_handler("pubmsg", pubmsg)
ann.connect(sys.argv[1], int(sys.argv[2]), "ann")

# A missing reply is a failure: the test compares the output.
deadline = time.monotonic() + 60
while len(said) < 2 and time.monotonic() < deadline:
    reactor.process_once(timeout=1)
print("\n".join(said))
