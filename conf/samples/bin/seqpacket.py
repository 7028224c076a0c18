#!/usr/bin/env python3
"""A message is a packet: nothing to be parsed, and each goes back as it came, empty ones too."""

import socket
import threading


def serve(client):
    with client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        while True:
            packet, credentials, _, _ = client.recvmsg(256 * 1024, socket.CMSG_SPACE(12))
            if not credentials:  # an empty packet has a sender; the end has none
                return
            client.send(packet)


listener = socket.socket(fileno=0)
while True:
    threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()
