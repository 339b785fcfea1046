import socket
import sys

path = (sys.argv + ["./upper.sock"])[1]

client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
client.connect(path)
while True:
    try:
        text = input()
    except EOFError:
        break
    if not text:
        continue
    client.send(text.encode())
    print(client.recv(1024).decode())
client.close()
