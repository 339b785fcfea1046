import socket
import sys

host, port = (sys.argv + ["127.0.0.1:8083"])[1].split(":")

client = socket.create_connection((host, int(port)))
client.sendall(b"a" * 1500)
print("sent a message of 1500 bytes")
print("received a reply of", len(client.recv(1024)), "bytes")
print("what stands where the reply to the next message belongs:", len(client.recv(1024)), "bytes")
client.close()
