"""forkd/address.py; the vectors cidr."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from vectors_loader import load, vector_id

from forkd.address import Address, Network, canonical, numbered, split_port


@pytest.mark.parametrize("vector", load("cidr"), ids=vector_id)
def test_vectors_cidr(vector: dict[str, Any]) -> None:
    assert (vector["address"] in Network(vector["network"])) is vector["expect"]


@pytest.mark.parametrize(
    ("network", "address", "expected"),
    [
        ("0.0.0.0/0", "::1", True),
        ("::/0", "1.2.3.4", True),
        ("::/0", "/run/client.sock", False),
        ("::ffff:0:0/96", "::1", False),
        ("::/1", "::ffff:10.0.0.1", True),
        ("::/1", "10.0.0.1", False),
        ("[2001:db8::]/32", "2001:db8::7", True),
        ("[::1]", "::1", True),
        ("10.0.0.0/8", "", False),
    ],
)
def test_network(network: str, address: str, expected: bool) -> None:
    assert (address in Network(network)) is expected


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0", "10.0.0.256", "10.0.0.0/33", "::1/129", "10.0.0.0/", "10.0.0.0/x", "::/+1", "h"],
)
def test_not_a_network(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        Network(text)


def test_networks_are_values() -> None:
    network = Network("10.0.0.5/30")
    assert network == Network("10.0.0.4/30") == pickle.loads(pickle.dumps(network))
    assert hash(network) == hash(Network("10.0.0.4/30"))
    assert network != Network("10.0.0.0/30")
    assert network != "10.0.0.4/30"


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("h", ("h", "")),
        ("h:8080", ("h", "8080")),
        ("h:", ("h", "")),
        ("[::1]", ("[::1]", "")),
        ("[::1]:8080", ("[::1]", "8080")),
        (":80", ("", "80")),
        ("", ("", "")),
    ],
)
def test_split_port(authority: str, expected: tuple[str, str]) -> None:
    assert split_port(authority) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2001:db8:0:0::1", "2001:db8::1"),
        ("[::1]", "::1"),
        ("::ffff:a00:1", "::ffff:10.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_canonical(text: str, expected: str) -> None:
    assert canonical(text) == expected


def test_canonical_refuses_names() -> None:
    with pytest.raises(ValueError, match="localhost"):
        canonical("localhost")


@pytest.mark.parametrize(
    ("address", "text", "second"),
    [
        (Address("/run/echo.sock"), "/run/echo.sock", "/run/echo.sock-1"),
        (Address("127.0.0.1", 80), "127.0.0.1:80", "127.0.0.1:81"),
        (Address("::1", 80), "[::1]:80", "[::1]:81"),
    ],
)
def test_address_text_and_numbers(address: Address, text: str, second: str) -> None:
    assert str(address) == text
    assert str(numbered(address, 1)) == second
