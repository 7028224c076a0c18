"""forkd/http/errorpage.py: the generated page and the admin's files (core.md 12)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forkd.config.model import ErrorSettings
from forkd.http.errorpage import error_page, error_response, reason


@pytest.mark.parametrize(
    ("status", "title"), [(404, "404 Not Found"), (413, "413 Content Too Large"), (599, "599")]
)
def test_page(status: int, title: str) -> None:
    page = error_page(status).decode("ascii")
    assert page.startswith("<!DOCTYPE html>")
    assert f"<title>{title}</title>" in page and f"<h1>{title}</h1>" in page
    assert "forkd" not in page


def test_unknown_status_has_no_reason() -> None:
    assert (reason(200), reason(299)) == ("OK", "")


def test_response() -> None:
    head, body = error_response(416, ErrorSettings(), (("Content-Range", "bytes */6"),))
    assert (head.status, head.length, body) == (416, len(body), error_page(416))
    assert dict(head.fields) == {"Content-Range": "bytes */6", "Content-Type": "text/html"}


def test_what_a_client_has_to_be_told_no_file_hides(tmp_path: Path) -> None:
    (tmp_path / "status-400.html").write_bytes(b"custom")
    errors = ErrorSettings(errorfile_prefix=str(tmp_path / "status-"))
    body = error_response(400, errors, why="Speak up.")[1]
    assert b"<h1>400 Bad Request</h1>\n<p>Speak up.</p>" in body


def test_files_of_the_admin(tmp_path: Path) -> None:
    errors = ErrorSettings(errorfile_prefix=str(tmp_path / "status-"))
    (tmp_path / "status-404.html").write_bytes(b"custom \xff")
    assert error_response(404, errors)[1] == b"custom \xff"
    (tmp_path / "status-403.html").mkdir()
    os.mkfifo(tmp_path / "status-500.html")
    for status in (400, 403, 500):
        assert error_response(status, errors)[1] == error_page(status)
