import socket

server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for message in [b"hello", b"how are you?", b"bye"]:
    client.sendall(message)

conn, address = server.accept()
# Act like a busy server: wait until all 20 bytes have arrived, without reading them.
conn.recv(20, socket.MSG_PEEK | socket.MSG_WAITALL)
print("recv(1024) returned", conn.recv(1024))
