import socket
import sys

host, port = (sys.argv + ["127.0.0.1:8083"])[1].split(":")

client = socket.create_connection((host, int(port)))
client.sendall(("你好" * 200).encode())
try:
    print("received", client.recv(1024))
except OSError as error:
    print(error)
