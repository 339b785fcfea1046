import socket
import sys

host, port = (sys.argv + ["127.0.0.1:8083"])[1].split(":")

first = socket.create_connection((host, int(port)))
second = socket.create_connection((host, int(port)))
print("both clients are connected")
second.sendall(b"hello\n")
second.settimeout(3)
try:
    print("the second client received", second.recv(1024))
except socket.timeout:
    print("the second client received nothing for 3 seconds; the first client leaves")
    first.close()
    second.settimeout(None)
    try:
        print(second.recv(1024))
    except OSError as error:
        print(error)
