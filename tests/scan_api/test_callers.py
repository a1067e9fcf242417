"""Whose request it is: proxies are believed only when they are trusted, and only about the caller before them."""

from ipaddress import IPv4Address
from typing import Any

import pytest
from fastapi import Request

from kit.errors import ConfigurationError
from kit.settings import Settings, load, networks
from scan_api import callers
from scan_api.callers import FORWARDED_MAX, client_address, device_id

NOWHERE = str(IPv4Address(0))
TRUSTED = networks("10.0.0.0/8, 2001:db8:ffff::1")


def request(peer: str | None, *forwarded: str, **headers: str) -> Request:
    sent: list[tuple[bytes, bytes]] = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    sent += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": sent, "client": None if peer is None else (peer, 5000)})


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.7", (), "203.0.113.7"),
        ("203.0.113.7", ("198.51.100.1",), "203.0.113.7"),  # a stranger's word
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.7",), "203.0.113.7"),
        ("10.0.0.1", ("198.51.100.1, 203.0.113.7",), "203.0.113.7"),  # the caller's own claim stands before
        ("10.0.0.1", ("198.51.100.1, 203.0.113.7, 10.0.0.2",), "203.0.113.7"),
        ("10.0.0.1", ("198.51.100.1", "203.0.113.7"), "203.0.113.7"),  # two headers are one list
        ("10.0.0.1", ("203.0.113.7, nonsense",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.7, nonsense, 10.0.0.2",), "10.0.0.2"),
        ("10.0.0.1", ("203.0.113.7:4711",), "203.0.113.7"),
        ("10.0.0.1", ("[2001:db8::7]:4711",), "2001:db8::7"),
        ("2001:db8:ffff::1", ("2001:db8::7",), "2001:db8::7"),
        ("::ffff:10.0.0.1", ("203.0.113.7",), "203.0.113.7"),
        ("fe80::1%eth0", (), "fe80::1"),
        (None, ("203.0.113.7",), NOWHERE),
        ("unix", (), NOWHERE),
    ],
)
def test_the_address_is_what_the_nearest_trusted_proxy_saw(
    peer: str | None, forwarded: tuple[str, ...], address: str
) -> None:
    assert str(client_address(request(peer, *forwarded), TRUSTED)) == address


def test_twenty_addresses_are_looked_at_and_the_one_before_is_not() -> None:
    chain = ["203.0.113.7", *["10.0.0.2"] * (FORWARDED_MAX - 1)]
    assert str(client_address(request("10.0.0.1", ", ".join(chain)), TRUSTED)) == "203.0.113.7"
    assert str(client_address(request("10.0.0.1", ", ".join([*chain, "10.0.0.3"])), TRUSTED)) == "10.0.0.2"


@pytest.mark.parametrize(
    ("peer", "narrow", "wide"),
    [
        ("203.0.113.7", "203.0.113.7/32", "203.0.113.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("::ffff:203.0.113.7", "203.0.113.7/32", "203.0.113.0/24"),
    ],
)
def test_a_caller_is_a_network_and_the_one_around_it(peer: str, narrow: str, wide: str) -> None:
    class Served:
        settings = Settings()

    caller = callers.caller_of(request(peer), Served())  # type: ignore[arg-type]
    assert (caller.address_network, caller.address_network_wide, caller.device_id) == (narrow, wide, None)


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ("a" * 15, False),
        ("a" * 16, True),
        ("A-z_0" * 12 + "abcd", True),
        ("a" * 65, False),
        ("a" * 15 + "é", False),
        ("a" * 16 + " b", False),
    ],
)
def test_a_device_id_is_16_to_64_plain_characters(told: str, known: bool) -> None:
    headers: dict[str, Any] = {"fanxing_device": told.encode().decode("latin-1")}
    assert device_id(request("203.0.113.7", **headers)) == (told if known else None)


def test_a_browser_tells_its_device_by_a_cookie_and_the_header_goes_first() -> None:
    cookie = "fanxing_device=cookie-0123456789"
    assert device_id(request("203.0.113.7", cookie=cookie)) == "cookie-0123456789"
    both = request("203.0.113.7", cookie=cookie, fanxing_device="header-0123456789")
    assert device_id(both) == "header-0123456789"


def test_a_wrong_list_of_proxies_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANXING_TRUSTED_PROXIES", "10.0.0.0/8, gateway")
    with pytest.raises(ConfigurationError, match="FANXING_TRUSTED_PROXIES"):
        load()
