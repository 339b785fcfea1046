import socket
import struct
import sys

host, port = (sys.argv + ["127.0.0.1:8083"])[1].split(":")

client = socket.create_connection((host, int(port)))
client.sendall(b"hello\n")
print(client.recv(1024))
# Close with a reset (RST) instead of a FIN. The system does the same when a process
# is killed while it has unread data.
client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
client.close()
