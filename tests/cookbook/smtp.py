"""Sends mails with smtplib. Arguments: port, certificate."""

import smtplib
import ssl
import sys

port, certificate = int(sys.argv[1]), sys.argv[2]
text = ".\r\n..\r\n.dots\r\n\r\nin the middle.\r\n.\r\nand at the end\r\n.\r\n"
long = "." + "x" * 997 + "\r\n"


def send(peer, text):
    assert peer.sendmail("a@example.org", ["b@example.org"], text) == {}


with smtplib.SMTP("localhost", port, timeout=60) as peer:
    send(peer, text)

with smtplib.SMTP("localhost", port, timeout=60) as peer:
    peer.ehlo()
    assert peer.has_extn("starttls")
    peer.starttls(context=ssl.create_default_context(cafile=certificate))
    assert peer.sock.version() == "TLSv1.3", peer.sock.version()
    peer.ehlo()
    assert not peer.has_extn("starttls")
    assert peer.docmd("STARTTLS")[0] == 503
    send(peer, text)
    send(peer, long)

print("sent in clear and in TLS")
