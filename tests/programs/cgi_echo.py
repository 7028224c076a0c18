"""The program of the http_exchange vectors: tells of its environment, or gives its input back."""

import os
import sys

query = os.environb[b"QUERY_STRING"]
if query == b"allenv":
    lines = sorted(b"%b=%b\n" % pair for pair in os.environb.items() if pair[0] != b"LC_CTYPE")
    body = b"".join(lines)
elif query.startswith(b"env="):
    body = os.environb.get(query[4:], b"[absent]")
else:
    length = os.environb[b"CONTENT_LENGTH"]
    body = b"len=%b body=%b" % (length, sys.stdin.buffer.read(int(length)))
sys.stdout.buffer.write(b"Content-Type: text/plain\r\n\r\n" + body)
