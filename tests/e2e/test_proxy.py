"""mod_proxy: ordinary requests, word by word, on real sockets (proxy.md, gateway.md 10 and 14)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from e2e.harness import Forkd, Server, wait_for
from e2e.http_backend import OK, HttpBackend, Peer, Script, answer_each
from e2e.proxied import Proxied, proxied
from e2e.rawhttp import Incomplete, Response, parse_response

CONFIG = """
server.modules = ( "mod_setenv", "mod_proxy" )
server.max-worker = 1
proxy.server = ( "/unix/" => (( @UNIX@ )), "" => (( @BACKEND@ )) )

$HTTP["url"] =~ "^/1/" {
  server.stream-request-body = 1
  server.stream-response-body = 1
}
$HTTP["url"] =~ "^/2/" {
  server.stream-request-body = 2
  server.stream-response-body = 2
}
$HTTP["url"] =~ "^(/2)?/old/" { proxy.header = ( "force-http10" => "enable" ) }
$HTTP["url"] =~ "^/(map|be)/" {
  proxy.header = (
    "map-urlpath" => ( "/map/" => "/be/" ),
    "map-host-request" => ( "-" => "be.example" ),
    "map-host-response" => ( "be.example" => "-", "other.example" => "front.example" )
  )
}
$HTTP["url"] =~ "^/forwarded/" {
  proxy.forwarded = ( "for" => 1, "by" => 1, "proto" => 1, "host" => 1, "remote_user" => 1 )
}
$HTTP["url"] =~ "^/label/" {
  proxy.replace-http-host = "enable"
  proxy.server = ( "" => ( "label.example" => ( @BACKEND@ ) ) )
}
$HTTP["url"] =~ "^/slow/" { proxy.server = ( "" => (( @BACKEND@, "read-timeout" => 1 )) ) }
$HTTP["url"] =~ "^/slow2/" {
  server.stream-response-body = 2
  proxy.server = ( "" => (( @BACKEND@, "read-timeout" => 1 )) )
}
$HTTP["url"] =~ "^/gone/" { proxy.server = ( "" => (( "host" => "127.0.0.1", "port" => 1 )) ) }
$HTTP["url"] =~ "^/named/" {
  proxy.server = ( "" => (( "host" => "localhost", "port" => @BACKEND_PORT@ )) )
}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with proxied(tmp_path_factory, CONFIG) as running:
        yield running


@pytest.fixture
def front(running: Proxied) -> Iterator[Proxied]:
    yield running
    running.reset()


def seen(response: Response) -> tuple[str, dict[str, str]]:
    """What ``answer_each`` saw: the request line, and the fields by name."""
    assert response.status == 200
    line, *fields = response.text.rstrip("\r\n").split("\r\n")
    return line, dict(field.split(": ", 1) for field in fields)


# -- what the backend is told ---------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/", "/1/", "/2/", "/unix/", "/named/"])
def test_request_arrives(front: Proxied, prefix: str) -> None:
    line, fields = seen(front.server.get(f"{prefix}a%2fb%20c/../d?x=%41"))
    assert line == f"GET {prefix}a/d?x=A HTTP/1.1"
    assert list(fields) == [
        "Host",
        "X-Forwarded-For",
        "X-Host",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "Connection",
    ]
    assert fields["Connection"] == "close"
    assert fields["Host"] == f"127.0.0.1:{front.server.port}"


def test_fields_of_one_connection_stay_on_it(front: Proxied) -> None:
    fields = "Connection: keep-alive, X-Hop\nX-Hop: 1\nKeep-Alive: 5\nX-End: 2\nUpgrade: foo\n"
    with front.server.connect() as client:
        _, told = seen(client.request(f"GET / HTTP/1.1\nHost: h\n{fields}\n"))
    assert told["X-End"] == "2"
    assert not told.keys() & {"X-Hop", "Keep-Alive", "Upgrade"}


def test_mapping_of_the_manual(front: Proxied) -> None:
    def redirect(peer: Peer) -> None:
        said.append(peer.head())
        peer.send(
            b"HTTP/1.1 302 Found\r\nLocation: http://be.example/be/new?x=1\r\n"
            b"Set-Cookie: a=b; Path=/be/; Domain=be.example\r\nContent-Length: 0\r\n\r\n"
        )

    said: list[str] = []
    front.backend.script = redirect
    host = f"www.front:{front.server.port}"
    answer = front.server.get(
        "/map/redir?a=/map/z", Host=host, Destination=f"http://{host}/map/d"
    )
    head = said[0].split("\r\n")
    assert head[0] == "GET /be/redir?a=/map/z HTTP/1.1"
    assert "Host: be.example" in head
    assert "Destination: http://be.example/be/d" in head
    assert f"X-Forwarded-Host: {host}" in head
    assert answer.field("Location") == f"http://{host}/map/new?x=1"
    assert answer.field("Set-Cookie") == "a=b; Path=/map/; Domain=www.front"


def test_forwarded(front: Proxied) -> None:
    told = seen(front.server.get("/forwarded/", X_Forwarded_For="1.2.3.4", Host="www.front"))[1]
    assert told["Forwarded"] == (
        f'for="1.2.3.4", for=127.0.0.1;by="127.0.0.1:{front.server.port}"'
        ';proto=http;host="www.front"'
    )


def test_host_is_the_label(front: Proxied) -> None:
    told = seen(front.server.get("/label/", Host="www.front"))[1]
    assert told["Host"] == "label.example"
    assert told["X-Host"] == "www.front"


def test_http10(front: Proxied) -> None:
    assert seen(front.server.get("/old/", TE="trailers"))[0] == "GET /old/ HTTP/1.0"
    with front.server.connect() as client:
        line, told = seen(client.request("GET /x HTTP/1.0\n\n"))
    assert line == "GET /x HTTP/1.0"
    assert not told.keys() & {"Host", "X-Host", "X-Forwarded-Host"}
    with front.server.connect() as client:
        assert seen(client.request("GET /x HTTP/1.0\nHost: h\n\n"))[0] == "GET /x HTTP/1.1"


# -- bodies ---------------------------------------------------------------------------------------


def request_body(peer: Peer, head: str) -> bytes:
    """The body behind *head*, of either framing."""
    for line in head.lower().split("\r\n"):
        if line.startswith("content-length: "):
            return peer.read(int(line.split()[1]))
    assert "\r\nTransfer-Encoding: chunked\r\n" in head
    body = b""
    while size := int(peer.read_until(b"\r\n"), 16):
        body += peer.read(size)
        assert peer.read(2) == b"\r\n"
    assert peer.read(2) == b"\r\n"
    return body


def echo(framing: str) -> Script:
    """Answers with the request's body, in one of the three framings."""

    def script(peer: Peer) -> None:
        body = request_body(peer, peer.head())
        if framing == "length":
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            return
        if framing == "eof":
            peer.send(b"HTTP/1.0 200 OK\r\n\r\n" + body)
            return
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 10_000):
            piece = body[start : start + 10_000]
            peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        peer.send(b"0\r\n\r\n")

    return script


def chunked(body: bytes) -> bytes:
    pieces = [body[start : start + 50_000] for start in range(0, len(body), 50_000)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("mode", ["/0/", "/1/", "/2/"])
@pytest.mark.parametrize("sent_as", ["length", "chunked"])
@pytest.mark.parametrize("answered_as", ["length", "chunked", "eof"])
def test_body_goes_there_and_back(
    front: Proxied, mode: str, sent_as: str, answered_as: str
) -> None:
    front.backend.script = echo(answered_as)
    for size in (0, 1, 65_536, 3_000_000):
        body = hashlib.shake_256(b"seed").digest(size)
        head = f"POST {mode} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
        if sent_as == "length":
            data = f"{head}Content-Length: {size}\r\n\r\n".encode() + body
        else:
            data = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunked(body)
        with front.server.connect() as client:
            sender = threading.Thread(target=client.send, args=(data,))
            sender.start()
            answer = client.response()
            sender.join()
        assert (answer.status, len(answer.body)) == (200, size)
        assert answer.body == body
        is_chunked = answer.field("Transfer-Encoding") == "chunked"
        assert is_chunked is (mode != "/0/" and answered_as != "length")


def test_body_that_was_buffered_has_a_length(front: Proxied) -> None:
    front.backend.script = note_heads(heads := [])
    upload = "POST {} HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n"
    for mode in ("/0/", "/2/", "/old/"):
        with front.server.connect() as client:
            assert client.request(upload.format(mode)).status == 200
    assert "\r\nContent-Length: 3\r\n" in heads[0]
    assert "\r\nTransfer-Encoding: chunked\r\n" in heads[1]
    assert heads[2].startswith("POST /old/ HTTP/1.0\r\n")
    assert "\r\nContent-Length: 3\r\n" in heads[2]
    with front.server.connect() as client:
        assert client.request(upload.format("/2/old/")).status == 411
    assert len(heads) == 3


def note_heads(heads: list[str]) -> Script:
    """Notes the head of each request and answers behind its body."""

    def script(peer: Peer) -> None:
        heads.append(peer.head())
        request_body(peer, heads[-1])
        peer.send(OK)

    return script


def test_body_that_nobody_reads_does_not_hold_up_the_answer(front: Proxied) -> None:
    def refuse(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        released.wait(10)

    released = threading.Event()
    front.backend.script = refuse
    with front.server.connect() as client:
        client.send(b"POST /2/ HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\nabc")
        assert client.response().status == 413
    released.set()


def test_expect_is_answered_here(front: Proxied) -> None:
    front.backend.script = note_heads(heads := [])
    with front.server.connect() as client:
        client.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
        assert client.response().status == 100
        client.send(b"abc")
        assert client.response().status == 200
    assert "Expect" not in heads[0]


@pytest.mark.parametrize(
    ("method", "answer", "expected"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", (200, "7", b"")),
        ("GET", b"HTTP/1.1 204 No\r\nX: y\r\n\r\n", (204, None, b"")),
        ("GET", b'HTTP/1.1 304 No\r\nETag: "x"\r\n\r\n', (304, None, b"")),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore", (200, "2", b"ok")),
        ("GET", b"HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n", (299, "0", b"")),
    ],
)
@pytest.mark.parametrize("mode", ["/0/", "/1/", "/2/"])
def test_answer_without_body(
    front: Proxied,
    mode: str,
    method: str,
    answer: bytes,
    expected: tuple[int, str | None, bytes],
) -> None:
    front.backend.script = answering(answer)
    with front.server.connect() as client:
        for _ in range(2):
            got = client.request(f"{method} {mode} HTTP/1.1\nHost: h\n\n")
            assert (got.status, got.field("Content-Length"), got.body) == expected


def answering(*parts: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.head()
        for part in parts:
            peer.send(part)

    return script


def test_interim_answers_are_passed_on(front: Proxied) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\nConnection: y\r\nY: z\r\n\r\n"
    front.backend.script = answering(hint, hint + OK)
    with front.server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        hints = [client.response() for _ in range(2)]
        assert [(hint.status, hint.fields) for hint in hints] == [(103, [("Link", "<x>")])] * 2
        assert client.response().body == b"ok"


def test_answer_is_passed_on_as_it_comes(front: Proxied) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        heard.wait(10)
        peer.send(b"def")

    for mode in ("/1/", "/2/"):
        heard = threading.Event()
        front.backend.script = script
        with front.server.connect() as client:
            client.send(f"GET {mode} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            client.read(len(client.unread))
            while b"abc" not in client.unread:
                assert client.is_open(5)
            heard.set()
            assert client.response().body == b"abcdef"


def test_trailers(front: Proxied) -> None:
    """They stay behind a body that is passed on as it comes, and join the head of one that waits
    for its end."""
    front.backend.script = answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T, Host\r\n\r\n"
        b"2\r\nok\r\n0\r\nT: x\r\nHost: forged\r\n\r\n"
    )
    for mode in ("/1/", "/2/"):
        answer = front.server.get(mode)
        assert (answer.body, answer.trailers) == (b"ok", [("T", "x")])
        assert answer.field("Trailer") == "T, Host"
    answer = front.server.get("/0/")
    assert (answer.body, answer.field("T"), answer.field("Trailer")) == (b"ok", "x", None)
    assert answer.field("Host") is None
    with front.server.connect() as client:
        answer = client.request("GET /2/ HTTP/1.0\nHost: h\n\n")
    assert (answer.body, answer.trailers) == (b"ok", [])


def test_fields_of_the_answer(front: Proxied) -> None:
    front.backend.script = answering(
        b"HTTP/1.1 200 Fine\r\nServer: be\r\nDate: then\r\nStatus: 500\r\nUpgrade: h2c\r\n"
        b"Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
        b"Empty:\r\nContent-Length: 0\r\n\r\n"
    )
    with front.server.connect() as client:
        answer = client.request("GET /2/ HTTP/1.1\nHost: h\n\n")
    assert answer.fields == [
        ("Server", "be"),
        ("Date", "then"),
        ("Status", "500"),
        ("Set-Cookie", "a"),
        ("Set-Cookie", "b"),
        ("Content-Length", "0"),
    ]


# -- failures -------------------------------------------------------------------------------------


def resetting(peer: Peer) -> None:
    peer.head()
    peer.reset()


FAILURES = {
    "closed without a reply": answering(),
    "reset": resetting,
    "closed in the status line": answering(b"HTTP/1.1 2"),
    "closed in the head": answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"),
    "no HTTP": answering(b"SSH-2.0-OpenSSH\r\n"),
    "another version": answering(b"HTTP/2.0 200 OK\r\n\r\n"),
    "bare line ends": answering(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    "no colon": answering(b"HTTP/1.1 200 OK\r\nhello\r\n\r\n"),
    "two lengths": answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nab"),
    "odd coding": answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
    "long head": answering(b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000),
    "unexpected 101": answering(b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n"),
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("mode", ["/0/", "/2/"])
def test_broken_answer_is_502(front: Proxied, name: str, mode: str) -> None:
    front.backend.script = FAILURES[name]
    assert front.server.get(mode).status == 502


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n",
    ],
)
def test_short_body_never_looks_whole(front: Proxied, answer: bytes) -> None:
    front.backend.script = answering(answer)
    assert front.server.get("/0/").status == 502
    for mode in ("/1/", "/2/"):
        with front.server.connect() as client:
            client.send(f"GET {mode} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
            data = client.read_all()
        # Either it was known in time, or the body is short and the connection gone.
        assert data.startswith(b"HTTP/1.1 502") or not data.endswith(b"0\r\n\r\n")
        if not data.startswith(b"HTTP/1.1 502"):
            with pytest.raises(Incomplete):
                parse_response(data)


def test_no_backend_is_503(front: Proxied) -> None:
    answer = front.server.get("/gone/")
    assert answer.status == 503
    assert int(answer.field("Retry-After") or 0) >= 1


def test_silent_backend_is_504(front: Proxied) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.read(1)

    front.backend.script = script
    assert front.server.get("/slow/").status == 504


def test_backend_that_falls_silent_in_the_body_is_cut(front: Proxied) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        peer.read(1)

    front.backend.script = script
    with front.server.connect() as client, pytest.raises(Incomplete):
        client.request("GET /slow2/ HTTP/1.1\nHost: h\n\n")


def test_client_that_leaves_is_noticed_by_the_backend(front: Proxied) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        asked.set()
        with suppress(ConnectionResetError):
            peer.read(1)
        left.set()

    asked, left = threading.Event(), threading.Event()
    front.backend.script = script
    client = front.server.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert asked.wait(10)
    Peer(client.socket).reset()
    assert left.wait(10)


# -- connections that are kept --------------------------------------------------------------------

KEEP = """
server.modules = ( "mod_proxy" )
server.max-worker = 1
proxy.server = ( "" => (( @BACKEND@, "keep-alive" => 2 )) )
$HTTP["url"] =~ "^/2/" { server.stream-response-body = 2 }
"""


@pytest.fixture(scope="module")
def running_keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with proxied(tmp_path_factory, KEEP) as running:
        yield running


@pytest.fixture
def keeping(running_keeping: Proxied) -> Iterator[Proxied]:
    yield running_keeping
    running_keeping.reset()


def get_each(server: Server, count: int, path: str = "/") -> None:
    for _ in range(count):
        assert server.get(path).status == 200


@pytest.mark.parametrize("path", ["/", "/2/"])
def test_connection_serves_many_requests(keeping: Proxied, path: str) -> None:
    answer = keeping.server.get(path)
    assert "\r\nConnection:" not in answer.text
    get_each(keeping.server, 20, path)
    assert keeping.server.get(path, "HEAD").status == 200
    assert keeping.server.get(path, "DELETE").status == 200
    assert keeping.backend.connections == 1


def test_no_more_are_kept_than_said(keeping: Proxied) -> None:
    def script(peer: Peer) -> None:
        while peer.head():
            barrier.wait(10)
            peer.send(OK)

    barrier = threading.Barrier(4)
    keeping.backend.script = script
    clients = [threading.Thread(target=keeping.server.get, args=("/",)) for _ in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert keeping.backend.connections == 4
    wait_for(lambda: keeping.backend.open == 2, what="two closed")


def test_body_never_goes_out_on_a_kept_connection(keeping: Proxied) -> None:
    def script(peer: Peer) -> None:
        while head := peer.head():
            if head.startswith("POST "):
                request_body(peer, head)
            peer.send(OK)

    keeping.backend.script = script
    get_each(keeping.server, 2)
    for _ in range(3):
        with keeping.server.connect() as client:
            assert client.request("POST / HTTP/1.1\nHost: h\nContent-Length: 1\n\nx").status == 200
    get_each(keeping.server, 2)
    assert keeping.backend.connections == 4


@pytest.mark.parametrize("declines", [b"HTTP/1.0 200 OK", b"HTTP/1.1 200 OK\r\nConnection: close"])
def test_backend_may_decline(keeping: Proxied, declines: bytes) -> None:
    keeping.backend.script = answering(declines + b"\r\nContent-Length: 2\r\n\r\nok")
    get_each(keeping.server, 3)
    assert keeping.backend.connections == 3


def test_connection_with_bytes_left_is_not_used_again(keeping: Proxied) -> None:
    def script(peer: Peer) -> None:
        while peer.head():
            peer.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")

    keeping.backend.script = script
    for _ in range(3):
        assert keeping.server.get("/").body == b"ok"
    assert keeping.backend.connections == 3


def test_connection_that_the_backend_has_closed_is_not_used(keeping: Proxied) -> None:
    keeping.backend.script = answering(OK)
    for _ in range(3):
        get_each(keeping.server, 1)
        keeping.backend.wait_idle()
    assert keeping.backend.connections == 3


@pytest.mark.parametrize("ends", [Peer.reset, lambda peer: None])
def test_connection_that_dies_under_a_request_is_replaced(keeping: Proxied, ends: Script) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        if peer.head():
            stale.append(1)
            ends(peer)

    stale: list[int] = []
    keeping.backend.script = script
    get_each(keeping.server, 2)
    keeping.backend.script = answer_each
    get_each(keeping.server, 2)
    assert (len(stale), keeping.backend.connections) == (2, 3)


def test_fresh_connection_that_dies_is_no_reason_to_ask_again(keeping: Proxied) -> None:
    keeping.backend.script = answering()
    assert keeping.server.get("/").status == 502
    assert keeping.backend.connections == 1


def test_kept_connections_do_not_hold_up_a_stop(forkd: Forkd) -> None:
    with HttpBackend() as backend:
        config = KEEP.replace("@BACKEND@", backend.host)
        server = forkd.start(config)
        get_each(server, 2)
        assert backend.open == 1
        server.stop(deadline=3)
        backend.wait_idle()
