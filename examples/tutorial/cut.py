import socket
import sys

host, port = (sys.argv + ["127.0.0.1:8083"])[1].split(":")

client = socket.create_connection((host, int(port)))
client.sendall(b"a" * 1500)
print("sent one message of 1500 bytes")
print("first recv(1024):", len(client.recv(1024)), "bytes")
print("second recv(1024):", len(client.recv(1024)), "bytes")
client.close()
