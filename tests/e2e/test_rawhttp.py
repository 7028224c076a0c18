"""The reader of responses that the other tests rely on."""

from __future__ import annotations

import pytest
from e2e.rawhttp import Incomplete, parse_response, parse_responses

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
)
TRAILED = CHUNKED[:-2] + b"Checked: yes\r\n\r\n"
OPEN_ENDED = b"HTTP/1.0 404 Not Found\r\n\r\ngone"
BODILESS = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_fields_are_found_without_regard_to_case() -> None:
    response, rest = parse_response(SIZED + b"more")
    assert (response.status, response.reason, response.version) == (200, "OK", "HTTP/1.1")
    assert (response.body, rest) == (b"hello", b"more")
    assert (response.field("X-a"), response.all("X-A"), response.field("y")) == (
        "1, 2",
        ["1", "2"],
        None,
    )


def test_chunks_are_joined_and_trailers_kept() -> None:
    response, rest = parse_response(TRAILED + SIZED)
    assert response.body == b"abcde"
    assert response.trailers == [("Checked", "yes")]
    assert rest == SIZED


def test_several_responses_on_one_connection() -> None:
    found = parse_responses(INTERIM + SIZED + BODILESS + CHUNKED + OPEN_ENDED)
    assert [response.status for response in found] == [100, 200, 304, 200, 404]
    assert [response.body for response in found] == [b"", b"hello", b"", b"abcde", b"gone"]


def test_answer_to_head_has_no_body() -> None:
    head = SIZED.removesuffix(b"hello")
    found = parse_responses(head + SIZED, heads=(0,))
    assert [response.body for response in found] == [b"", b"hello"]


@pytest.mark.parametrize("whole", [SIZED, CHUNKED, TRAILED, BODILESS], ids=range(4))
def test_every_beginning_is_incomplete(whole: bytes) -> None:
    for length in range(len(whole)):
        with pytest.raises(Incomplete):
            parse_response(whole[:length])


def test_body_without_length_needs_the_end() -> None:
    with pytest.raises(Incomplete):
        parse_response(OPEN_ENDED, at_eof=False)


@pytest.mark.parametrize("text", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"])
def test_what_is_not_http_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse_response(text)
