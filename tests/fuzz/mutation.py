"""Mutation: changed inputs, of bytes and of texts, that know what the formats are made of."""

from random import Random
from typing import Final

from tests.fuzz import cbor_tree

_BYTES: Final = b"\x00\x01\x17\x18\x19\x1a\x1b\x1f\x20\x3f\x40\x58\x5f\x60\x80\x83\x84\x9f\xa0\xa3\xbf\xd2\xd8\xf6\xff"
_CHARS: Final = "0123456789/" * 3 + "abcXYZ%+-_ .:?#@[]\n\r\x00٠１é\ud800"
_BASES: Final = (
    "https://id.example.cn", "http://127.0.0.1:8000", "HTTPS://ID.EXAMPLE.CN", "https://a.cn:65535", "https://a.cn:65536",
    "https://a.cn:0", "https://1.2.3", "https://256.1.1.1", "https://255.255.255.255", "https://xn--a.cn", "https://-a.cn",
    "https://a-.cn", "https://a..cn", "https://a.cn.", "https://A.cn", "Https://a.cn", "https://a.0x7f", "https://cn",
    "https://" + "a" * 63 + ".cn", "https://" + "a" * 64 + ".cn", "https://" + "a.b" * 84 + "c",
    "https://" + "a." * 127 + "cn",
    "https://a.cn:", "https://a.cn:080", "https://u@a.cn", "//a.cn", "https://", "https://a_b.cn", "https://é.cn", "",
)  # fmt: skip
_PATH_CHARS: Final = 198


def changed_bytes(data: bytes, others: tuple[bytes, ...], dice: Random) -> bytes:
    """One to four changes of single bytes, of runs, or of lengths."""
    for _ in range(1 + (dice.random() < 0.4) + (dice.random() < 0.3) + (dice.random() < 0.2)):
        data = _change(data, others, dice)
    return data


def changed_cbor(data: bytes, others: tuple[bytes, ...], dice: Random) -> bytes:
    """Mostly changes of CBOR's structure, sometimes of its bytes."""
    if dice.random() < 0.9:
        try:
            return cbor_tree.mutated(data, others, dice)
        except ValueError:
            pass
    return changed_bytes(data, others, dice)


def changed_text(text: str, others: tuple[str, ...], dice: Random) -> str:
    """A code text with another base, or with characters changed, put in, left out, swapped or taken from another."""
    if dice.random() < 0.15:
        return dice.choice(_BASES) + text[-_PATH_CHARS:]
    for _ in range(1 + (dice.random() < 0.2)):
        at, other = dice.randrange(len(text) + 1), dice.choice(others)
        match dice.randrange(6):
            case 0:
                text = text[:at] + dice.choice(_CHARS) + text[at + 1 :]
            case 1:
                text = text[:at] + dice.choice(_CHARS) + text[at:]
            case 2:
                text = text[:at] + text[at + 1 :]
            case 3:
                text = text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :]
            case 4:
                text = text[:at] + other[at - len(text) :] if at < len(text) else other
            case _:
                to = dice.randrange(at, len(text) + 1)
                text = text[:at] + other[at:to] + text[to:]
    return text


def _change(data: bytes, others: tuple[bytes, ...], dice: Random) -> bytes:  # noqa: PLR0911 - one return a change
    if not data:
        return dice.randbytes(dice.randrange(1, 9))
    at, to = sorted((dice.randrange(len(data) + 1), dice.randrange(len(data) + 1)))
    match dice.randrange(9):
        case 0:
            return data[:at] + bytes([dice.choice(_BYTES)]) + data[at + 1 :]
        case 1:
            return data[:at] + bytes([dice.choice(_BYTES)]) + data[at:]
        case 2:
            return data[:at] + data[at + 1 :]
        case 3:
            at = min(at, len(data) - 1)
            return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]
        case 4:
            return data[:at]
        case 5:
            return data[:at] + data[to:]
        case 6:
            return data[:to] + data[at:to][:4096] + data[to:]
        case 7:
            return data[:at] + dice.choice(others)[at:to] + data[to:]
        case _:
            return data + dice.choice(others)[:4096]
