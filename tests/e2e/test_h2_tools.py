"""The HTTP/2 clients that everybody has, in the clear and by TLS, against files and every gateway
that answers ordinary requests: curl, and nghttp and h2load of nghttp2."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest
from e2e.h2_site import FILE, RELAYS, SECURITY, Site, path_of

SIZE = 300_000
DOWNLOAD = (bytes(range(256)) * (SIZE // 256 + 1))[:SIZE]
DOWNLOADS = [("/static.bin", FILE)]
DOWNLOADS += [(path_of(gateway, f"download?{SIZE}"), DOWNLOAD) for gateway in RELAYS]
UPLOAD = FILE[:200_001]
RECEIPT = f"{len(UPLOAD)} {hashlib.sha1(UPLOAD).hexdigest()}".encode()

BY_PATH = pytest.mark.parametrize(("path", "content"), DOWNLOADS, ids=[d[0] for d in DOWNLOADS])
BY_GATEWAY = pytest.mark.parametrize("gateway", RELAYS)


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    file = tmp_path / "upload"
    file.write_bytes(UPLOAD)
    return file


def said(command: str, *arguments: str) -> bytes:
    """What *command* writes to its standard output; AssertionError when it fails."""
    done = subprocess.run([command, *arguments], capture_output=True, timeout=60)
    assert done.returncode == 0, (done.stderr, done.stdout[:1000])
    return done.stdout


def curl(site: Site, tls: bool, *arguments: str) -> bytes:
    how = ["--http2", "--cacert", str(site.authority.certificate)]
    how = how if tls else ["--http2-prior-knowledge"]
    return said("curl", "-sS", "--fail", "-w", "%{http_version}", *how, *arguments)


# -- curl ---------------------------------------------------------------------------------------


@SECURITY
@BY_PATH
def test_curl_downloads(site: Site, path: str, content: bytes, tls: bool) -> None:
    assert curl(site, tls, site.url(path, tls)) == content + b"2"


@SECURITY
@BY_GATEWAY
def test_curl_uploads(site: Site, gateway: str, upload: Path, tls: bool) -> None:
    url = site.url(path_of(gateway, "upload"), tls)
    assert curl(site, tls, "--data-binary", f"@{upload}", url) == RECEIPT + b"2"
    assert curl(site, tls, "-T", str(upload), "-X", "POST", url) == RECEIPT + b"2"


def test_curl_has_many_streams_on_one_connection(site: Site, tmp_path: Path) -> None:
    arguments = []
    for number, (path, _) in enumerate(DOWNLOADS):
        arguments += ["-o", str(tmp_path / str(number)), site.url(path)]
    made = curl(site, True, "--parallel", "-w", "%{num_connects}\n", *arguments)
    assert sorted(made.split()) == [b"0"] * (len(DOWNLOADS) - 1) + [b"1"]
    for number, (_, content) in enumerate(DOWNLOADS):
        assert (tmp_path / str(number)).read_bytes() == content


# -- nghttp -------------------------------------------------------------------------------------


@SECURITY
@BY_PATH
def test_nghttp_downloads(site: Site, path: str, content: bytes, tls: bool) -> None:
    assert said("nghttp", "--no-verify-peer", site.url(path, tls)) == content


@SECURITY
@BY_GATEWAY
def test_nghttp_uploads(site: Site, gateway: str, upload: Path, tls: bool) -> None:
    url = site.url(path_of(gateway, "upload"), tls)
    for more in ((), ("--expect-continue",), ("--no-content-length",), ("--padding=100",)):
        arguments = ("--no-verify-peer", *more, "-d", str(upload), url)
        assert said("nghttp", *arguments) == RECEIPT, more


def test_nghttp_has_priorities_and_many_requests(site: Site) -> None:
    """Everything eight times, on one connection, with weights and dependencies."""
    urls = [site.url(path) for path, _ in DOWNLOADS]
    weights = [f"-p{1 + 50 * number}" for number in range(len(urls))]
    statistics = said("nghttp", "--no-verify-peer", "-n", "-s", "-m8", *weights, *urls).decode()
    answers = re.findall(r"^ *\d+ +\+\S+ +\+\S+ +\S+ +(\d+) +(\S+) (/\S*)", statistics, re.M)
    assert len(answers) == 8 * len(urls), statistics
    assert {status for status, _, _ in answers} == {"200"}


# -- h2load -------------------------------------------------------------------------------------


@SECURITY
@BY_PATH
def test_h2load_downloads(site: Site, path: str, content: bytes, tls: bool) -> None:
    count = 20 if "cgi/app.py" in path else 100
    assert loaded(site.url(path, tls), count) == count * len(content)


@SECURITY
@BY_GATEWAY
def test_h2load_uploads(site: Site, gateway: str, upload: Path, tls: bool) -> None:
    url = site.url(path_of(gateway, "upload"), tls)
    assert loaded(url, 20, "-d", str(upload)) == 20 * len(RECEIPT)


def loaded(url: str, count: int, *more: str) -> int:
    """The bytes of the bodies of *count* answers, each of which came with status 200."""
    told = said("h2load", f"-n{count}", "-c4", "-m10", *more, url).decode()
    assert f"{count} succeeded, 0 failed, 0 errored, 0 timeout" in told, told
    assert f"status codes: {count} 2xx" in told, told
    assert "Application protocol: h2" in told
    found = re.search(r"\((\d+)\) data$", told, re.M)
    assert found is not None, told
    return int(found[1])
