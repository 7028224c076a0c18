"""Media types by file name (core.md 10.5): the built-in table, and how any table is searched."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from ..config.model import MimeTypes

DEFAULT = "application/octet-stream"
FEW = 16  # entries from which on a table is searched by extension and not in order
REMEMBERED = 1024  # paths: most requests are for few files

_BUILT_IN = """
text/html                                         .html .htm .xhtml
text/plain;charset=utf-8                          .txt .text README
text/plain                                        .conf .log
text/css;charset=utf-8                            .css
text/csv                                          .csv
text/javascript                                   .js .mjs
text/markdown;charset=utf-8                       .md
text/xml                                          .xml .xsl
text/calendar                                     .ics
text/vtt                                          .vtt
application/json                                  .json .map
application/ld+json                               .jsonld
application/manifest+json                         .webmanifest
application/wasm                                  .wasm
application/pdf                                   .pdf
application/postscript                            .ps .eps
application/rtf                                   .rtf
application/epub+zip                              .epub
application/java-archive                          .jar
application/zip                                   .zip
application/gzip                                  .gz
application/x-bzip2                               .bz2
application/x-xz                                  .xz
application/zstd                                  .zst
application/x-tar                                 .tar
application/x-gtar-compressed                     .tar.gz .tgz
application/x-bzip2-compressed-tar                .tar.bz2 .tbz
application/x-xz-compressed-tar                   .tar.xz .txz
application/x-7z-compressed                       .7z
application/vnd.debian.binary-package             .deb
application/x-rpm                                 .rpm
image/svg+xml                                     .svg .svgz
image/png                                         .png
image/apng                                        .apng
image/jpeg                                        .jpg .jpeg
image/gif                                         .gif
image/webp                                        .webp
image/avif                                        .avif
image/bmp                                         .bmp
image/tiff                                        .tiff .tif
image/vnd.microsoft.icon                          .ico
font/woff                                         .woff
font/woff2                                        .woff2
font/ttf                                          .ttf
font/otf                                          .otf
audio/aac                                         .aac
audio/flac                                        .flac
audio/midi                                        .mid .midi
audio/mp4                                         .m4a
audio/mpeg                                        .mp3
audio/ogg                                         .oga .ogg .opus
audio/wav                                         .wav
audio/webm                                        .weba
video/mp2t                                        .ts
video/mp4                                         .mp4 .m4v
video/mpeg                                        .mpeg .mpg
video/ogg                                         .ogv
video/quicktime                                   .mov
video/webm                                        .webm
video/x-matroska                                  .mkv
video/x-msvideo                                   .avi
"""

Search = Callable[[str], str]
"""File name to type, "" when the table has none for it."""


def _built_in() -> MimeTypes:
    rows = [line.split() for line in _BUILT_IN.strip().splitlines()]
    types = [(key, kind) for kind, *keys in rows for key in keys]
    return MimeTypes((*types, ("", DEFAULT)))


BUILT_IN = _built_in()


def media_type(path: str, table: MimeTypes | None) -> str:
    """The type that *table* (None: the built-in one) gives the file at *path*; "" for none."""
    table = BUILT_IN if table is None else table
    found = _searches.get(id(table))
    if found is None:
        # The entry holds the table too, so that its id cannot come to mean another one.
        found = _searches[id(table)] = (table, _compiled(table))
    return found[1](path)


_searches: dict[int, tuple[MimeTypes, Search]] = {}


def _compiled(table: MimeTypes) -> Search:
    search = _in_order(table) if len(table.types) < FEW else _by_extension(table)
    return lru_cache(maxsize=REMEMBERED)(search)


def _in_order(table: MimeTypes) -> Search:
    """The first key that the path ends in, case ignored."""
    types = [(key.lower(), kind) for key, kind in table.types]

    def search(path: str) -> str:
        lower = path.lower()
        return next((kind for key, kind in types if lower.endswith(key)), "")

    return search


def _by_extension(table: MimeTypes) -> Search:
    """The base name as a key, else the longest extension, else ``""``."""
    types = dict(reversed(table.types))  # of a key that stands twice the first counts

    def search(path: str) -> str:
        for key in _candidates(path[path.rfind("/") + 1 :]):
            kind = types.get(key) or types.get(key.lower())
            if kind:
                return kind
        return types.get("", "")

    return search


def _candidates(name: str) -> list[str]:
    """The name, then its extensions from the longest on, each with its dot and without."""
    out = [name]
    dot = name.find(".", 1)
    while dot >= 0:
        out += [name[dot:], name[dot + 1 :]]
        dot = name.find(".", dot + 1)
    return [key for key in out if key]
