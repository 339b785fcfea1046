import socket


def listen(address, reuse):
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    server.bind(address)
    server.listen(5)
    return server


for name, reuse in [("without", 0), ("with", 1)]:
    server = listen(("127.0.0.1", 0), reuse)
    address = server.getsockname()
    client = socket.create_connection(address)
    conn, _ = server.accept()
    # Ctrl-C closes both sockets of the server while the client is still connected.
    conn.close()
    server.close()
    try:
        listen(address, reuse)
        print(name, "SO_REUSEADDR: the restarted server listens")
    except OSError as error:
        print(name, "SO_REUSEADDR:", error)
