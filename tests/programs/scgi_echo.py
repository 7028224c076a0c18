"""echo_app over SCGI, or over uwsgi with the argument ``uwsgi``; its listener is descriptor 0."""

from __future__ import annotations

import sys

from stream_app import Connection, serve_for_ever


class ScgiConnection(Connection):
    def head(self) -> dict[str, str]:
        return self._uwsgi() if sys.argv[1:] == ["uwsgi"] else self._scgi()

    def _scgi(self) -> dict[str, str]:
        size = b""
        while not size.endswith(b":"):
            size += self.exactly(1)
        *parts, end = self.exactly(int(size[:-1])).decode("latin-1").split("\0")
        assert end == "" and self.exactly(1) == b","
        assert parts[0] == "CONTENT_LENGTH" and len(set(parts[::2])) == len(parts) / 2
        return dict(zip(parts[::2], parts[1::2], strict=True))

    def _uwsgi(self) -> dict[str, str]:
        head = self.exactly(4)
        assert head[0] == head[3] == 0
        data = self.exactly(int.from_bytes(head[1:3], "little"))
        parts = []
        while data:
            end = 2 + int.from_bytes(data[:2], "little")
            parts.append(data[2:end].decode("latin-1"))
            data = data[end:]
        return dict(zip(parts[::2], parts[1::2], strict=True))


serve_for_ever(ScgiConnection)
