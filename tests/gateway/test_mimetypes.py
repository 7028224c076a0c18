"""forkd/gateway/mimetypes.py: which type a name has (core.md 10.5)."""

from __future__ import annotations

import pytest

from forkd.config.model import MimeTypes
from forkd.gateway.mimetypes import BUILT_IN, DEFAULT, media_type

FEW = MimeTypes((
    (".txt", "text/x-first"),
    (".tar.gz", "a/tgz"),
    (".gz", "a/gz"),
    ("ADME", "a/suffix"),
))  # fmt: skip
FILLER = tuple((f".x{number}", "x/y") for number in range(16))
MANY = MimeTypes((
    (".gz", "a/gz"),
    (".tar.gz", "a/tgz"),
    ("README", "a/name"),
    ("log", "a/bare"),
    (".Upper", "a/upper"),
    (".txt", "a/txt"),
    *FILLER,
))  # fmt: skip


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/a/x.txt", "text/x-first"),
        ("/a/UP.TXT", "text/x-first"),
        ("/a/x.tar.gz", "a/tgz"),
        ("/a/x.gz", "a/gz"),
        ("/README", "a/suffix"),
        ("/x.js", ""),
    ],
)
def test_few_entries_are_searched_in_order(path, kind):
    assert media_type(path, FEW) == kind


def test_an_earlier_empty_suffix_takes_all():
    assert media_type("/x.txt", MimeTypes((("", "a/all"), (".txt", "a/txt")))) == "a/all"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/x.tar.gz", "a/tgz"),
        ("/x.y.gz", "a/gz"),
        ("/README", "a/name"),
        ("/XREADME", ""),
        ("/error.log", "a/bare"),
        ("/log", "a/bare"),
        ("/UP.TXT", "a/txt"),
        ("/x.Upper", "a/upper"),
        ("/x.upper", ""),
        ("/.txt", "a/txt"),  # a whole base name
        ("/dir.gz/name", ""),
        ("/x..gz", "a/gz"),
        ("/x.gz.", ""),
        ("/", ""),
    ],
)
def test_many_entries_by_name_then_longest_extension(path, kind):
    assert media_type(path, MANY) == kind


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/a.html", "text/html"),
        ("/a.htm", "text/html"),
        ("/a.txt", "text/plain;charset=utf-8"),
        ("/a.css", "text/css;charset=utf-8"),
        ("/a.mjs", "text/javascript"),
        ("/a.tar.gz", "application/x-gtar-compressed"),
        ("/a.ico", "image/vnd.microsoft.icon"),
        ("/README", "text/plain;charset=utf-8"),
        ("/.htaccess", DEFAULT),
        ("/noext", DEFAULT),
    ],
)
def test_built_in(path, kind):
    assert media_type(path, None) == kind


def test_built_in_names_every_key_once():
    keys = [key for key, _ in BUILT_IN.types]
    assert len(keys) == len(set(keys))
