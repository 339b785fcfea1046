import socket
import sys

host, port = (sys.argv + ["127.0.0.1:8083"])[1].split(":")

client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
client.connect((host, int(port)))
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
