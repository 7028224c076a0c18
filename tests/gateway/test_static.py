"""forkd/gateway/static.py: files as responses (core.md 10, 11); what goes over the wire, the
http_exchange vectors say."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import pytest
from fakes import FakeConfig, FakeExchange, make_request

from forkd.config.model import Features, MimeTypes, RequestConfig, ServerSettings, StaticSettings
from forkd.errors import (
    ClientGone,
    Forbidden,
    ForkdError,
    MethodNotAllowed,
    NotFound,
    NotImplementedHere,
    PreconditionFailed,
    RangeNotSatisfiable,
)
from forkd.gateway import static
from forkd.message import Head

MODIFIED = 1704164645
LAST_MODIFIED = "Tue, 02 Jan 2024 03:04:05 GMT"


@pytest.fixture
def root(tmp_path):
    def write(name: str, content: bytes) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (MODIFIED, MODIFIED))

    write("small.txt", b"12345\n")
    write("empty.txt", b"")
    write("big.bin", bytes(range(256)) * 256)
    write("app.php", b"source")
    write("sub/index.html", b"index\n")
    write("sub/any.txt", b"any\n")
    (tmp_path / "bare dir").mkdir()
    return str(tmp_path)


@pytest.fixture(autouse=True)
def no_descriptor_is_left():
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


SETTINGS = StaticSettings(index_files=("index.html",))
PLAIN = FakeConfig()
FLAGS = {
    name: FakeConfig(server=ServerSettings(features=Features(**{name: value})))
    for name, value in (("absolute_dir_redirect", True), ("http10_range", True))
}


def fetch(root, request, config=PLAIN, exchange=None, **changes) -> FakeExchange:
    """Find and serve, as the dispatcher does."""
    settings = RequestConfig(document_root=root, static=replace(SETTINGS, **changes))
    exchange = exchange or FakeExchange(request)
    exchange.settings = settings
    found = static.find(request, settings, config)
    if isinstance(found, Head):
        static.respond_empty(exchange, found)
    else:
        with found:
            static.serve(exchange, found, config)
    return exchange


def test_get(root):
    got = fetch(root, make_request("/small.txt"))
    assert (got.status, got.body, got.is_finished) == (200, b"12345\n", True)
    assert got.head.length == 6
    fields = dict(got.head.fields)
    assert re.fullmatch(r'"[0-9a-f]+"', fields.pop("ETag"))
    assert fields == {
        "Content-Type": "text/plain;charset=utf-8",
        "Last-Modified": LAST_MODIFIED,
        "Accept-Ranges": "bytes",
    }


def test_a_small_file_is_written_and_a_big_one_handed_over(root):
    assert fetch(root, make_request("/small.txt")).calls == ["respond", "write"]
    big = fetch(root, make_request("/big.bin"))
    assert big.calls == ["respond", "send_file"]
    assert big.body == bytes(range(256)) * 256
    assert fetch(root, make_request("/empty.txt")).calls == ["respond"]


def test_head_promises_the_length_and_reads_nothing(root, monkeypatch):
    monkeypatch.setattr(static.os, "pread", None)
    got = fetch(root, make_request("/small.txt", "HEAD"))
    assert (got.status, got.head.length, got.is_finished) == (200, 6, True)


@pytest.mark.parametrize(
    ("method", "target", "outcome"),
    [
        ("POST", "/small.txt", 200),
        ("OPTIONS", "/small.txt", 200),
        ("OPTIONS", "/sub/", 200),
        ("OPTIONS", "/sub", 200),
        ("OPTIONS", "/bare%20dir/", 200),
        ("OPTIONS", "/nope", NotFound),
        ("QUERY", "/small.txt", Forbidden),
        ("QUERY", "/nope", NotFound),
        ("CONNECT", "/small.txt", MethodNotAllowed),
        ("PUT", "/small.txt", NotImplementedHere),
        ("PUT", "/sub/", NotImplementedHere),
        ("DELETE", "/sub", NotImplementedHere),
        ("PUT", "/nope", NotFound),
        ("POST", "/sub", 301),
        ("POST", "/bare%20dir/", Forbidden),
    ],
)
def test_methods(root, method, target, outcome):
    request = make_request(target, method)
    if isinstance(outcome, int):
        got = fetch(root, request)
        assert got.status == outcome
        if method == "OPTIONS":
            assert (got.field("allow"), got.head.length) == (static.METHODS, 0)
    else:
        with pytest.raises(outcome):
            fetch(root, request)


def test_post_takes_no_ranges(root):
    got = fetch(root, make_request("/small.txt", "POST", fields={"Range": "bytes=0-1"}))
    assert (got.status, got.field("accept-ranges"), got.body) == (200, "", b"12345\n")


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/sub", "/sub/"),
        ("/sub?a=b", "/sub/?a=b"),
        ("/sub?", "/sub/?"),
        ("/bare%20dir", "/bare%20dir/"),
        ("//sub", "/sub/"),
    ],
)
def test_folder_without_slash(root, target, location):
    got = fetch(root, make_request(target))
    assert (got.status, got.field("location"), got.head.length) == (301, location, 0)


@pytest.mark.parametrize(
    ("host", "name", "location"),
    [
        ("h:81", "srv", "http://h:81/sub/?x"),
        ("", "srv", "http://srv/sub/?x"),
        ("", "", "http://localhost:8080/sub/?x"),
    ],
)
def test_absolute_redirect(root, host, name, location):
    request = make_request("/sub?x", host=host)
    settings = RequestConfig(document_root=root, server_name=name)
    found = static.find(request, settings, FLAGS["absolute_dir_redirect"])
    assert isinstance(found, Head)
    assert found.fields.get("location") == location


@pytest.mark.parametrize(
    ("target", "names", "body"),
    [
        ("/sub/", ("index.html",), b"index\n"),
        ("/sub/", ("nothere", "any.txt", "/small.txt"), b"any\n"),
        ("/bare%20dir/", ("nothere", "any.txt", "/small.txt"), b"12345\n"),
    ],
)
def test_index_files(root, target, names, body):
    assert fetch(root, make_request(target), index_files=names).body == body


def test_folder_without_index_is_refused(root):
    with pytest.raises(Forbidden):
        fetch(root, make_request("/bare%20dir/"))


def test_own_path_of_what_was_found(root):
    def own_path(target: str) -> str:
        request = make_request(target)
        settings = RequestConfig(document_root=root, static=SETTINGS)
        with static.find(request, settings, PLAIN) as found:
            return static.url_path(request, found)

    assert own_path("/small.txt") == "/small.txt"
    assert own_path("/small.txt/a/b") == "/small.txt"
    assert own_path("/sub/") == "/sub/index.html"
    assert own_path("/bare%20dir/") == "/bare dir/"


@pytest.mark.parametrize(
    ("target", "changes", "error"),
    [
        ("/small.txt/foo", {}, Forbidden),
        ("/small.txt/", {}, NotFound),
        ("/app.php", {"exclude_extensions": (".php",)}, Forbidden),
        ("/SMALL.TXT", {}, NotFound),
    ],
)
def test_refused(root, target, changes, error):
    with pytest.raises(error):
        fetch(root, make_request(target), **changes)


def test_path_info_and_case_as_configured(root):
    got = fetch(root, make_request("/small.txt/foo"), disable_pathinfo=False)
    assert got.body == b"12345\n"
    got = fetch(root, make_request("/SMALL.TXT"), force_lowercase_filenames=True)
    assert got.body == b"12345\n"


def test_a_mapped_request_is_not_looked_up_under_the_document_root(root):
    base = root + "/sub/"
    got = fetch(root, make_request("/x/any.txt", physical=(base, base + "any.txt")))
    assert got.body == b"any\n"


# -- validators -------------------------------------------------------------------------------


def test_a_guessed_type_has_no_validators(root):
    got = fetch(root, make_request("/small.txt"), mime_types=MimeTypes((("x", "y/z"),)))
    assert dict(got.head.fields) == {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
    }


def test_entity_tags_change_with_what_they_are_made_of(root):
    path = root + "/small.txt"

    def tag(**changes) -> str:
        return fetch(root, make_request("/small.txt"), **changes).field("etag")

    parts = ("etag_use_inode", "etag_use_mtime", "etag_use_size")
    variants = {tag(), *(tag(**{part: False}) for part in parts)}
    assert len(variants) == 4
    assert tag(**dict.fromkeys(parts, False)) == ""
    assert tag(etags=False) == ""
    before = tag()
    os.utime(path, ns=(0, MODIFIED * 10**9 + 1))
    assert tag() != before


def test_xattr_gives_the_type(root, monkeypatch):
    def getxattr(fd, name):
        if os.fstat(fd).st_ino != os.stat(root + "/small.txt").st_ino:
            raise OSError(61, "No data available")
        assert name == "user.Kind"
        return b"x/attr\0"

    monkeypatch.setattr(static.os, "getxattr", getxattr)

    def kind(target: str, use: bool) -> str:
        got = fetch(root, make_request(target), use_xattr=use, xattr_name="user.Kind")
        return got.field("content-type")

    assert kind("/small.txt", True) == "x/attr"
    assert kind("/sub/any.txt", True) == "text/plain;charset=utf-8"
    assert kind("/small.txt", False) == "text/plain;charset=utf-8"


def test_not_modified_has_type_and_validators_but_no_length(root):
    tag = fetch(root, make_request("/small.txt")).field("etag")
    got = fetch(root, make_request("/small.txt", fields={"If-None-Match": tag}))
    assert (got.status, got.body, got.head.length) == (304, b"", None)
    assert sorted(name for name, _ in got.head.fields) == ["Content-Type", "ETag", "Last-Modified"]


def test_precondition_failed(root):
    with pytest.raises(PreconditionFailed):
        fetch(root, make_request("/small.txt", "POST", fields={"If-None-Match": "*"}))


# -- ranges -----------------------------------------------------------------------------------


def ranged(value: str, target: str = "/big.bin", **changes):
    method = changes.pop("method", "GET")
    fields = {"Range": value, **changes.pop("fields", {})}
    return make_request(target, method, fields=fields, **changes)


def test_one_range(root):
    got = fetch(root, ranged("bytes=10-19"))
    assert (got.status, got.head.length, got.body) == (206, 10, bytes(range(10, 20)))
    assert got.field("content-range") == "bytes 10-19/65536"
    assert got.calls == ["respond", "write"]


def test_a_long_range_is_handed_over(root):
    got = fetch(root, ranged("bytes=1-60000"))
    assert (got.calls, len(got.body)) == (["respond", "send_file"], 60000)


def test_several_ranges(root):
    got = fetch(root, ranged("bytes=0-1,1000-40000,-2"))
    assert got.status == 206
    found = re.fullmatch(r"multipart/byteranges; boundary=(\w+)", got.field("content-type"))
    assert found
    parts = got.body.split(b"--" + found[1].encode())
    assert parts[0] == b"" and parts[-1] == b"--\r\n"
    data = bytes(range(256)) * 256
    for part, (first, last) in zip(
        parts[1:-1], [(0, 1), (1000, 40000), (65534, 65535)], strict=True
    ):
        head, _, body = part.partition(b"\r\n\r\n")
        assert head == (
            b"\r\nContent-Type: application/octet-stream\r\n"
            b"Content-Range: bytes %d-%d/65536" % (first, last)
        )
        assert body == data[first : last + 1] + b"\r\n"
    assert got.head.length == len(got.body)
    assert fetch(root, ranged("bytes=0-1,-2")).field("content-type") != got.field("content-type")


def test_no_range_to_satisfy(root):
    with pytest.raises(RangeNotSatisfiable) as caught:
        fetch(root, ranged("bytes=65536-"))
    assert caught.value.fields == (("Content-Range", "bytes */65536"),)


@pytest.mark.parametrize(
    ("request_", "config", "changes", "status"),
    [
        (ranged("items=0-1"), PLAIN, {}, 200),
        (ranged("bytes=0-1", method="HEAD"), PLAIN, {}, 200),
        (ranged("bytes=0-1", "/empty.txt"), PLAIN, {}, 200),
        (ranged("bytes=0-1"), PLAIN, {"range_requests": False}, 200),
        (ranged("bytes=0-1", version="HTTP/1.0"), PLAIN, {}, 200),
        (ranged("bytes=0-1", version="HTTP/1.0"), FLAGS["http10_range"], {}, 206),
        (ranged("bytes=0-1", fields={"If-Range": LAST_MODIFIED}), PLAIN, {}, 206),
        (ranged("bytes=0-1", fields={"If-Range": '"x"'}), PLAIN, {}, 200),
    ],
)
def test_when_ranges_count(root, request_, config, changes, status):
    got = fetch(root, request_, config, **changes)
    assert got.status == status
    is_offered = config is not PLAIN or request_.version != "HTTP/1.0"
    assert bool(got.field("accept-ranges")) is (is_offered and not changes)


# -- when it goes wrong -----------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/small.txt", "/big.bin"])
def test_a_file_that_shrinks_never_looks_complete(root, target):
    request = make_request(target)
    settings = RequestConfig(document_root=root, static=SETTINGS)
    exchange = FakeExchange(request, settings)
    with static.find(request, settings, PLAIN) as found:
        os.truncate(root + target, 3)
        with pytest.raises(EOFError):
            static.serve(exchange, found, PLAIN)
    assert not exchange.is_finished


def test_a_client_that_leaves_leaves_no_descriptor(root):
    exchange = FakeExchange(make_request("/small.txt"))
    exchange.leaves_after = 0
    with pytest.raises(ClientGone):
        fetch(root, exchange.request, exchange=exchange)


def test_index_file_that_may_not_be_read_does_not_leak_the_folder(root, monkeypatch):
    real = static.files.lookup

    def lookup(base, path, *args, **kwargs):
        if path.endswith("index.html"):
            raise Forbidden(path)
        return real(base, path, *args, **kwargs)

    monkeypatch.setattr(static.files, "lookup", lookup)
    with pytest.raises(ForkdError):
        fetch(root, make_request("/sub/"))
