"""echo_app as an HTTP/1.1 server, for proxy; its listener is descriptor 0.  One request on each
connection; the head that the application writes for a CGI becomes one of HTTP."""

from __future__ import annotations

from stream_app import Connection, serve_for_ever


class HttpConnection(Connection):
    _has_head = False

    def head(self) -> dict[str, str]:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.exactly(1)
        start, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, target, version = start.split(" ")
        path, _, query = target.partition("?")
        environ = {"REQUEST_METHOD": method, "SERVER_PROTOCOL": version, "SCRIPT_NAME": path}
        environ |= {"QUERY_STRING": query, "CONTENT_LENGTH": "0"}
        for line in lines:
            name, _, value = line.partition(":")
            name = name.upper().replace("-", "_")
            name = name if name == "CONTENT_LENGTH" else f"HTTP_{name}"
            assert name == "CONTENT_LENGTH" or name not in environ, name
            environ[name] = value.strip()
        return environ

    def write(self, data: bytes) -> None:
        if not self._has_head:
            self._has_head = True
            status = b"200"
            if data.startswith(b"Status: "):
                line, _, data = data.partition(b"\r\n")
                status = line[8:]
            connection = b"upgrade" if status == b"101" else b"close"
            data = b"HTTP/1.1 %b Echo\r\nConnection: %b\r\n%b" % (status, connection, data)
        super().write(data)


serve_for_ever(HttpConnection)
