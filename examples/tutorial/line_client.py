import socket
import sys

host, port = (sys.argv + ["127.0.0.1:8083"])[1].split(":")

with socket.create_connection((host, int(port))) as client:
    replies = client.makefile("rb")
    for text in sys.stdin:
        client.sendall(text.rstrip("\n").encode() + b"\n")
        reply = replies.readline()
        if not reply.endswith(b"\n"):
            sys.exit("the server closed the connection")
        print(reply.decode().rstrip("\n"))
