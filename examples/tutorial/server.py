import socket
import sys

host, port = (sys.argv + ["127.0.0.1:8083"])[1].split(":")

server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
server.bind((host, int(port)))
server.listen(5)
print("listening on %s:%d" % server.getsockname())

conn, address = server.accept()
print("client %s:%d" % address)
while True:
    data = conn.recv(1024)
    if not data:
        break
    text = data.decode()
    print("received", len(data), "bytes:", repr(text[:20]))
    conn.send(text.upper().encode())
conn.close()
server.close()
