"""Who is calling, as far as a network can tell: the network of an address, and the id that a device tells of itself.

Neither proves anything. They serve limits: how often one network or one device may ask. A proxy's word on whom it
speaks for is believed only from the proxies that FANXING_TRUSTED_PROXIES names.
"""

import ipaddress
import re
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from fastapi import Request
from fastapi.responses import Response

from kit.settings import networks
from kit.vault import Vault
from scan_api.cookies import cookie_of
from scan_api.services import Services

DEVICE_HEADER = "fanxing-device"
DEVICE_COOKIE = "fanxing_device"
DEVICE_ID_CHARACTERS_MIN, DEVICE_ID_CHARACTERS_MAX = 16, 64
DEVICE_COOKIE_LIFETIME_S = 400 * 86_400
"""As long as browsers keep a cookie at most."""
FORWARDED_MAX = 20
"""Addresses of an X-Forwarded-For header that are looked at, from its end."""

_DEVICE_ID = re.compile(rf"[A-Za-z0-9_-]{{{DEVICE_ID_CHARACTERS_MIN},{DEVICE_ID_CHARACTERS_MAX}}}")
_NEW_DEVICE_ID_BYTES = 24
# What one subscriber has, and what one network has: IPv6 gives a subscriber at least a /64 (RFC 6177), so that limits
# by address would limit nobody; and an IPv4 neighbourhood is the smallest block that is routed on its own.
_PREFIX_BITS = {4: (32, 24), 6: (64, 48)}

_NETWORKS_REMEMBERED = 10_000

Address = IPv4Address | IPv6Address
_UNKNOWN = IPv4Address(0)
_trusted = lru_cache(maxsize=8)(networks)


@dataclass(frozen=True, slots=True)
class Caller:
    """One caller: networks as 203.0.113.7/32 or 2001:db8:1:2::/64, and the wider ones around them (/24, /48)."""

    address_network: str
    address_network_wide: str
    device_id: str | None
    """What the device calls itself, 16 to 64 of A-Z a-z 0-9 _ -; None when it does not."""


def caller_of(request: Request, services: Services) -> Caller:
    """Whose request this is. Never fails: an address that is none counts as 0.0.0.0."""
    address = client_address(request, _trusted(services.settings.trusted_proxies))
    narrow, wide = _PREFIX_BITS[address.version]
    return Caller(_network(address, narrow), _network(address, wide), device_id(request))


def subjects_of(vault: Vault, caller: Caller) -> tuple[uuid.UUID | None, uuid.UUID]:
    """Ids of a caller's device, if it names itself, and of his network: keyed hashes that limits count by."""

    def hashed(what: str, value: str) -> uuid.UUID:
        return uuid.UUID(bytes=vault.fingerprint(what, value)[:16])

    device = hashed("claim-device", caller.device_id) if caller.device_id is not None else None
    return device, hashed("claim-place", caller.address_network)


def client_address(request: Request, trusted: Sequence[IPv4Network | IPv6Network]) -> Address:
    """The address of the caller: of the connection, or what the trusted proxies before it say in X-Forwarded-For.

    The header is read from its end, where the nearest proxy wrote; the first address that is no trusted proxy's is the
    caller's. What stands before it is the caller's own claim.
    """
    address = _address(request.client.host if request.client else "") or _UNKNOWN
    forwarded = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
    for written in forwarded[: -FORWARDED_MAX - 1 : -1]:
        if not any(address in network for network in trusted):
            return address
        before = _address(written.strip())
        if before is None:
            return address
        address = before
    return address


def device_id(request: Request) -> str | None:
    """What the device calls itself: an app by a header, a browser by a cookie that this server gave it."""
    told = request.headers.get(DEVICE_HEADER) or cookie_of(request, DEVICE_COOKIE) or ""
    return told if _DEVICE_ID.fullmatch(told) else None


def name_device(request: Request, response: Response, services: Services) -> None:
    """Give a browser that has no id yet one, out of reach of scripts."""
    if device_id(request) is None:
        response.set_cookie(
            DEVICE_COOKIE,
            secrets.token_urlsafe(_NEW_DEVICE_ID_BYTES),
            max_age=DEVICE_COOKIE_LIFETIME_S,
            httponly=True,
            samesite="lax",
            secure=services.settings.base_url.startswith("https:"),
        )


def _address(text: str) -> Address | None:
    # Some proxies add a port, brackets or a zone; 45 characters hold every address (RFC 4291, 2.2).
    bare = text.removeprefix("[").partition("]")[0] if text.startswith("[") else text
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        address = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    # A socket that serves both families shows an IPv4 caller as ::ffff:203.0.113.7.
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(_NETWORKS_REMEMBERED)
def _network(address: Address, bits: int) -> str:
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))
