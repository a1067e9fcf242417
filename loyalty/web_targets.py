"""Web targets: where this server may send requests that a customer asked for, and nowhere else.

A brand names the URL of its webhook. Were any address good, it could make this server speak to what only this server
reaches: the database's neighbour, a cloud's metadata service (server-side request forgery). So names are resolved
here, every address is looked at, and the connection goes to the very address that was looked at.
"""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal
from urllib.parse import SplitResult, urlsplit

from kit.errors import Invalid

Targets = Literal["public", "private"]
"""What FANXING_WEBHOOK_TARGETS says: public addresses only, or private ones and this machine as well."""

RESOLVE_TIMEOUT_S: Final = 5.0
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052, 2.1: the last 32 bits are an IPv4 address
_SPECIAL: Final = (
    IPv4Network("192.0.0.0/24"),  # RFC 6890, 2.2.2: protocol assignments, some of which newer registries call global
    IPv6Network("3fff::/20"),  # RFC 9637: documentation; newer than this Python's registry
)
_HTTPS_PORT: Final = 443
_HTTP_PORT: Final = 80


class WebTargetRefused(Invalid):
    """The URL may not be called; the message says why, and never what its name resolves to."""

    code = "WebTargetRefused"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect: the address that was looked at, and the name that the receiver goes by."""

    url: str
    """The URL with the address in place of the name."""
    host: str
    """For TLS: the certificate must be for this name."""
    authority: str
    """For the header Host."""


def check_url(url: str, characters_max: int, targets: Targets) -> None:
    """Look at the form alone: https, a host, no user name, no fragment. http is for this machine, in development.

    Raises WebTargetRefused.
    """
    if len(url) > characters_max or not url.isascii() or not url.isprintable() or " " in url:
        raise WebTargetRefused(f"a URL has at most {characters_max} printable ASCII characters")
    parts = _split(url)
    if parts.username is not None or parts.password is not None or parts.fragment or "#" in url:
        raise WebTargetRefused("a URL has no user name, password or fragment")
    if parts.scheme == "http" and targets == "private" and _is_loopback(parts.hostname or ""):
        return
    if parts.scheme != "https":
        raise WebTargetRefused("a webhook's URL begins with https://")


async def resolve(url: str, targets: Targets) -> Target:
    """Resolve the URL's host and refuse it unless every address of it is allowed.

    Raises WebTargetRefused, also for a name that is not known.
    """
    parts = _split(url)
    host = parts.hostname or ""
    default = _HTTPS_PORT if parts.scheme == "https" else _HTTP_PORT
    port = parts.port or default
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        raise WebTargetRefused("the URL's host is not known") from None
    addresses = [ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]) for _, _, _, _, sockaddr in found]
    # All of them, not only the one in use: which comes first is the name server's choice, at every look-up.
    if not addresses or (targets == "public" and not all(map(is_public, addresses))):
        raise WebTargetRefused("the URL leads to an address that is not public")
    if parts.scheme == "http" and not all(address.is_loopback for address in addresses):
        raise WebTargetRefused("http is for this machine alone")
    first = addresses[0]
    literal = f"[{first}]" if first.version == 6 else str(first)
    shown = f"[{host}]" if ":" in host else host
    return Target(
        url=parts._replace(netloc=f"{literal}:{port}").geturl(),
        host=host,
        authority=shown if port == default else f"{shown}:{port}",
    )


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is somebody's on the public internet: not private, local, shared, reserved or multicast.

    An IPv6 address that stands for an IPv4 one (mapped, 6to4, Teredo, NAT64) is public when that one is, too.
    """
    if isinstance(address, IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(IPv4Address(int(address) & 0xFFFF_FFFF))
        embedded = [one for one in inner if one is not None]
        if embedded:
            return all(map(is_public, embedded))
        if address.is_site_local:  # fec0::/10, deprecated by RFC 3879 and in no registry of special addresses
            return False
    # is_global asks the IANA registries of special addresses, which do not hold multicast.
    special = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not special and not any(address in block for block in _SPECIAL)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise WebTargetRefused("this is no URL") from None
    if not parts.hostname:
        raise WebTargetRefused("a URL names a host")
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
