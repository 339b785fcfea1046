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
print("connected, and accepted by nobody:", len(waiting))

waiting[0].sendall(b"hello")
conn, address = server.accept()
print("sent before it was accepted:", conn.recv(1024))
waiting.append(socket.create_connection(server.getsockname(), timeout=1))
print("accept() made room for one more")
