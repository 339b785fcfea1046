import socketserver
import sys

host, port = (sys.argv + ["127.0.0.1:8083"])[1].split(":")


class Upper(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True  # sets SO_REUSEADDR
    daemon_threads = True  # Ctrl-C does not wait for connected clients


with Server((host, int(port)), Upper) as server:
    print("listening on %s:%d" % server.server_address)
    server.serve_forever()
