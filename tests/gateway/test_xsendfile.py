"""forkd/gateway/xsendfile.py: which file, and what becomes of the backend's fields."""

from __future__ import annotations

import os

import pytest
from fakes import FakeConfig, FakeExchange, make_request

from forkd.address import Address
from forkd.config.backend import BackendSpec
from forkd.config.model import RequestConfig, StaticSettings
from forkd.errors import BackendBroken, Forbidden, ForkdError, NotFound
from forkd.gateway.conversation import Terms
from forkd.gateway.xsendfile import NamedFile, named_files, serve
from forkd.message import Fields, Head

PLAIN = Terms(send_file_fields=("x-sendfile",))
FASTCGI = Terms(send_file_fields=("x-sendfile", "x-lighttpd-send-file", "x-sendfile2"))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a b.txt").write_bytes(b"0123456789")
    (tmp_path / "in" / "b.txt").write_bytes(b"abcdef")
    (tmp_path / "out.txt").write_bytes(b"secret")
    os.symlink(tmp_path / "out.txt", tmp_path / "in" / "link")
    return str(tmp_path)


@pytest.fixture(autouse=True)
def no_descriptor_is_left():
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def answer(terms, *fields, status=200, request=None, static=None):
    settings = RequestConfig(static=static or StaticSettings())
    exchange = FakeExchange(make_request(fields=request or {}), settings)
    head = Head(status, Fields(fields))
    serve(exchange, head, named_files(head, terms), terms, FakeConfig())
    assert exchange.is_finished
    return exchange


@pytest.mark.parametrize(
    ("terms", "field", "value", "files"),
    [
        (Terms(), "X-Sendfile", "/a", []),
        (PLAIN, "X-Other", "/a", []),
        (PLAIN, "X-Sendfile", "/a%20b/../c", [NamedFile("/c")]),
        (PLAIN, "X-LIGHTTPD-send-file", "/a", []),
        (FASTCGI, "X-LIGHTTPD-send-file", "/a", [NamedFile("/a")]),
        (FASTCGI, "X-Sendfile2", "/a%2c 1-2, /b 3-",
         [NamedFile("/a,", (1, 2)), NamedFile("/b", (3, -1))]),
    ],
)  # fmt: skip
def test_named_files(terms, field, value, files):
    assert named_files(Head(200, Fields([(field, value)])), terms) == files


@pytest.mark.parametrize(
    ("field", "value"),
    [("X-Sendfile", "/%ff"), ("X-Sendfile", "/a%00"), ("X-Sendfile2", "/a"), ("X-Sendfile2", "x")],
)
def test_what_cannot_be_understood(field, value):
    with pytest.raises(BackendBroken):
        named_files(Head(200, Fields([(field, value)])), FASTCGI)


def test_which_fields_send_files_is_the_hosts():
    spec = BackendSpec("scgi", "/", "", Address("/s"), x_sendfile=True, x_sendfile_docroot=("/d/",))
    terms = Terms.of(spec)
    assert terms.send_file_fields == ("x-sendfile",) and terms.send_file_docroots == ("/d/",)
    assert Terms.of(BackendSpec("scgi", "/", "", Address("/s"))).send_file_fields == ()


def test_file_takes_the_place_of_the_body(root):
    got = answer(
        PLAIN,
        ("X-Sendfile", f"{root}/in/a%20b.txt"),
        ("Content-Length", "3"),
        ("ETag", '"theirs"'),
        ("X-Kept", "1"),
    )
    assert (got.status, got.body, got.head.length) == (200, b"0123456789", 10)
    assert got.field("content-type").startswith("text/plain")
    assert got.field("etag") not in ("", '"theirs"') and got.field("last-modified")
    assert (got.field("x-kept"), got.field("x-sendfile")) == ("1", "")
    assert got.file_name == f"{root}/in/a b.txt"


def test_type_and_status_are_the_programs(root):
    fields = (("X-Sendfile", f"{root}/in/b.txt"), ("Content-Type", "x/y"))
    got = answer(PLAIN, *fields, status=404, request={"Range": "bytes=0-0"})
    assert (got.status, got.field("content-type"), got.body) == (404, "x/y", b"abcdef")


def test_ranges_and_conditions(root):
    field = ("X-Sendfile", f"{root}/in/b.txt")
    got = answer(PLAIN, field, request={"Range": "bytes=1-2"})
    assert (got.status, got.body) == (206, b"bc")
    tag = got.field("etag")
    assert answer(PLAIN, field, request={"If-None-Match": tag}).status == 304


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/in/b.txt", None),
        ("/in/../out.txt", Forbidden),
        ("/out.txt", Forbidden),
        ("/in/none", NotFound),
        ("/in/", Forbidden),
    ],
)
def test_docroots(root, path, error):
    terms = Terms(send_file_fields=("x-sendfile",), send_file_docroots=(f"{root}/in/",))
    if error is None:
        assert answer(terms, ("X-Sendfile", root + path)).body == b"abcdef"
        return
    with pytest.raises(error):
        answer(terms, ("X-Sendfile", root + path))


def test_symlinks_as_configured(root):
    assert answer(PLAIN, ("X-Sendfile", f"{root}/in/link")).body == b"secret"
    with pytest.raises(Forbidden):
        strict = StaticSettings(follow_symlink=False)
        answer(PLAIN, ("X-Sendfile", f"{root}/in/link"), static=strict)


def test_a_path_that_is_not_absolute_is_nobodys(root):
    with pytest.raises(Forbidden):
        answer(PLAIN, ("X-Sendfile", "etc/passwd"))


def test_parts_of_several_files(root):
    value = f"{root}/in/a%20b.txt 2-4, {root}/in/b.txt 4-, {root}/in/b.txt 0-99"
    got = answer(FASTCGI, ("X-Sendfile2", value), ("Content-Type", "x/y"))
    assert (got.status, got.body, got.head.length) == (200, b"234efabcdef", 11)
    with pytest.raises(ForkdError):
        answer(FASTCGI, ("X-Sendfile2", f"{root}/in/b.txt 9-"))
