import socket

server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
client.settimeout(1)

message = b"x" * 100_000_000
count = client.send(message)
print("send() accepted the whole message:", count == len(message))

try:
    client.sendall(message[count:])
except socket.timeout:
    print("sendall() timed out and does not report how many bytes it sent")
