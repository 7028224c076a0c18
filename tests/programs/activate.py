"""A service manager in small: opens listening sockets, then becomes the command, which inherits
them as sd_listen_fds(3) has it.

    activate.py [NAME=]HOST:PORT|/PATH ... -- COMMAND ARGUMENT ...
"""

import os
import socket
import sys

FIRST = 3


def listener(where: str) -> socket.socket:
    if where.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(where)
    else:
        host, _, port = where.rpartition(":")
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host.strip("[]"), int(port)))
    sock.listen()
    return sock


split = sys.argv.index("--")
names, wheres = zip(*(word.rpartition("=")[::2] for word in sys.argv[1:split]), strict=True)
# Out of the way first: the numbers that are wanted may be taken.
kept = [listener(where).detach() for where in wheres]
high = [os.dup2(fd, 100 + index) for index, fd in enumerate(kept)]
for index, fd in enumerate(high):
    os.dup2(fd, FIRST + index)
os.closerange(FIRST + len(high), 200)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(high))
if any(names):
    os.environ["LISTEN_FDNAMES"] = ":".join(names)
command = sys.argv[split + 1 :]
os.execvp(command[0], command)
