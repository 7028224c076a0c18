"""forkd/config/wstunnel.py: how messages travel, and what goes with it (wstunnel.md 10)."""

from __future__ import annotations

from typing import Any

import pytest

from forkd.config.backend import BackendSpec
from forkd.config.diagnostics import ConfigRefused
from forkd.config.load import load
from forkd.config.model import MAX_MESSAGE_SIZE, Config, WsDeflate, WsTunnelSettings

HEAD = 'server.document-root = "/"\nserver.modules = ("mod_wstunnel", "mod_scgi", "mod_fastcgi")\n'
SOCKET = '"socket" => "/run/echo.sock"'


def loaded(text: str) -> Config:
    return load("main.conf", text=f"{HEAD}{text}\n".encode("latin-1"))


def said(text: str) -> list[str]:
    try:
        diagnostics = loaded(text).diagnostics
    except ConfigRefused as refused:
        diagnostics = refused.diagnostics
    return [f"{found.line} {found.severity}: {found.text}" for found in diagnostics]


def server(options: str, gateway: str = "wstunnel") -> str:
    return f'{gateway}.server = ("/ws/" => (( {options} )))\n'


def backend(text: str) -> BackendSpec:
    (only,) = loaded(text).backends
    return only


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ('framing = "typed"', "framing", "typed"),
        ('framing = "stream"', "framing", "stream"),
        ('subprotocols = ("chat.v2", "chat")', "subprotocols", ("chat.v2", "chat")),
        ("subprotocols = ()", "subprotocols", ()),
        ("max-message-size = 0", "max_message_size", 0),
        ("max-frame-size = 1000", "max_frame_size", 1000),
        ('max-message-rate = "20"', "max_message_rate", 20),
        ('rate-action = "close"', "rate_action", "close"),
        ('deflate = "enable"', "deflate", WsDeflate()),
        ('deflate = "disable"', "deflate", None),
        ("deflate = ()", "deflate", WsDeflate()),
        (
            """deflate = ("level" => 1, "client-max-window-bits" => 8, "min-size" => "0",
            "server-no-context-takeover" => "enable", "memory-limit" => 1000000)""",
            "deflate",
            WsDeflate(
                level=1,
                client_max_window_bits=8,
                min_size=0,
                server_no_context_takeover=True,
                memory_limit=1_000_000,
            ),
        ),
    ],
)
def test_values(line: str, field: str, value: Any) -> None:
    assert said(f"wstunnel.{line}") == []
    assert getattr(loaded(f"wstunnel.{line}").base.wstunnel, field) == value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('framing = "lines"', 'expected one of stream, line, netstring, typed, seqpacket, got "'),
        ('framing = "seqpacket"', 'no wstunnel.server in this block: "framing" => "seqpacket" in'),
        ('subprotocols = "chat"', "expected a list of strings"),
        ('subprotocols = ("a b")', '"a b" is not the name of a subprotocol'),
        ('subprotocols = ("")', "an empty string in the list"),
        ('subprotocols = ("a", "b", "a")', '"a" stands twice in the list'),
        ('subprotocols = ("base64")', '"base64" is not supported'),
        ('max-message-rate = "many"', "expected a number"),
        ('rate-action = "drop"', "expected one of slow, close"),
        ('deflate = "maybe"', 'expected "enable" or "disable"'),
        ('deflate = ("level" => 0)', '"level": expected a number from 1 to 9, got 0'),
        ('deflate = ("server-max-window-bits" => 8)', '"server-max-window-bits": expected a '),
        ('deflate = ("client-max-window-bits" => 16)', '"client-max-window-bits": expected a num'),
        ('deflate = ("min_size" => 1)', 'unknown key "min_size"; did you mean min-size?'),
    ],
)
def test_bad_values(line: str, message: str) -> None:
    (error,) = said(f"wstunnel.{line}")
    assert error.startswith(f"3 error: wstunnel.{line.split()[0]}: {message}")


@pytest.mark.parametrize(
    ("framing", "given", "limits"),
    [
        ("stream", {}, (0, 0)),
        ("line", {}, (MAX_MESSAGE_SIZE, MAX_MESSAGE_SIZE)),
        ("typed", {"max_message_size": 0}, (0, 0)),
        ("netstring", {"max_message_size": 10}, (10, 10)),
        ("stream", {"max_frame_size": 10}, (0, 10)),
        ("stream", {"max_message_size": 10}, (10, 10)),
        ("seqpacket", {"max_frame_size": 0}, (MAX_MESSAGE_SIZE, 0)),
    ],
)
def test_size_limits(framing: Any, given: dict[str, int], limits: tuple[int, int]) -> None:
    assert WsTunnelSettings(**given).size_limits(framing) == limits


def test_all_of_it_may_depend_on_the_request() -> None:
    text = '$HTTP["url"] =^ "/a/" { wstunnel.framing = "line"\nwstunnel.deflate = "enable" }'
    config = loaded(text)
    assert config.base.wstunnel == WsTunnelSettings()
    assert config.blocks[1] == {"wstunnel.framing": "line", "wstunnel.deflate": WsDeflate()}


# Host options


def test_what_a_host_says() -> None:
    spec = backend(
        server(f'{SOCKET}, "framing" => "line", "line-newline" => "space", "metadata" => "cgi"')
    )
    assert (spec.framing, spec.line_newline, spec.metadata) == ("line", "space", "cgi")
    assert not spec.takes_packets


def test_a_host_that_says_nothing() -> None:
    spec = backend('wstunnel.framing = "line"\n' + server(SOCKET))
    assert (spec.framing, spec.line_newline, spec.metadata) == ("", "refuse", "none")


def test_packets_said_by_a_host_or_for_all_hosts_of_the_block() -> None:
    assert backend(server(f'{SOCKET}, "framing" => "seqpacket"')).takes_packets
    config = loaded('wstunnel.framing = "seqpacket"\n' + server(SOCKET))
    assert config.backends[0].takes_packets
    assert config.base.wstunnel.framing == "stream"
    other = 'wstunnel.framing = "seqpacket"\n' + server(f'{SOCKET}, "framing" => "line"')
    assert backend(other).framing == "line"


@pytest.mark.parametrize(
    ("options", "gateway", "expected"),
    [
        (f'{SOCKET}, "framing" => "json"', "wstunnel", '"framing": expected one of stream, line,'),
        (f'{SOCKET}, "line-newline" => "x"', "wstunnel", "expected one of refuse, space"),
        (f'{SOCKET}, "metadata" => "x"', "wstunnel", "one of none, proxy-v1, proxy-v2, cgi"),
        ('"host" => "::1", "framing" => "seqpacket"', "wstunnel", 'needs a unix "socket"'),
        ('"bin-path" => "/bin/cat", "framing" => "seqpacket"', "wstunnel", "needs a unix"),
        (
            f'{SOCKET}, "framing" => "seqpacket", "tls" => 1, "tls-name" => "a"',
            "wstunnel",
            '"tls" is for streams',
        ),
        (f'{SOCKET}, "framing" => "seqpacket"', "scgi", "is for wstunnel alone"),
    ],
)
def test_hosts_that_cannot_be(options: str, gateway: str, expected: str) -> None:
    lines = said(server(options, gateway))
    (error,) = (line for line in lines if "error" in line)
    assert error.startswith(f"3 error: {gateway}.server: ")
    assert expected in error


def test_packets_for_all_hosts_but_one_is_on_tcp() -> None:
    (error,) = said('wstunnel.framing = "seqpacket"\n' + server('"host" => "::1"'))
    assert 'needs a unix "socket"' in error


@pytest.mark.parametrize(
    ("options", "gateway", "note"),
    [
        (
            f'{SOCKET}, "framing" => "typed", "line-newline" => "space"',
            "wstunnel",
            'option "line-newline" means nothing to "framing" => "typed"',
        ),
        (f'{SOCKET}, "line-newline" => "space"', "wstunnel", ""),
        (f'{SOCKET}, "metadata" => "cgi"', "scgi", 'option "metadata" means nothing to scgi'),
        (
            f'{SOCKET}, "framing" => "line"',
            "fastcgi",
            'option "framing" means nothing to fastcgi',
        ),
    ],
)
def test_what_means_nothing_is_noted(options: str, gateway: str, note: str) -> None:
    lines = said(server(options, gateway))
    assert lines == ([f"3 note: {gateway}.server: {note}"] if note else [])
