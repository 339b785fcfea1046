import socket

server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
server.bind(("127.0.0.1", 0))
server.listen(5)

waiting = []
while True:
    try:
        waiting.append(socket.create_connection(server.getsockname(), timeout=1))
    except socket.timeout:
        break
print("clients connected without accept():", len(waiting))

waiting[0].sendall(b"hello")
conn, address = server.accept()
print("bytes sent before accept():", conn.recv(1024))
waiting.append(socket.create_connection(server.getsockname(), timeout=1))
print("after one accept(), one more client can connect")
