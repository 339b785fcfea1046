import socket

server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for message in [b"hello", b"how are you?", b"bye"]:
    client.sendall(message)

conn, address = server.accept()
# A server that was busy for a moment finds all 20 bytes: wait until they are there,
# and leave them there.
conn.recv(20, socket.MSG_PEEK | socket.MSG_WAITALL)
print("recv(1024) returned", conn.recv(1024))
