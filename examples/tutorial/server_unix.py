import socket
import sys

path = (sys.argv + ["./upper.sock"])[1]

server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.bind(path)
server.listen(5)
print("listening on", server.getsockname())

conn, address = server.accept()
print("client %r" % address)
while True:
    data = conn.recv(1024)
    if not data:
        break
    text = data.decode()
    print("received", len(data), "bytes:", repr(text[:20]))
    conn.send(text.upper().encode())
conn.close()
server.close()
