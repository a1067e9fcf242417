"""Revocations: packed item sets right and wrong, and questions of what is revoked."""

from typing import Any, Final

from offline_sdk import CodeText, ItemSet, Revocations
from offline_sdk.bundle import revocations_to_cbor
from offline_sdk.revocation import RevocationIndex
from tests.offline_sdk import plain_json
from tests.vector_cases.common import GTIN_A, GTIN_A_CASE, GTIN_B, Vectors, error_of, named

_LAST: Final = 999_999_999
_SETS: Final[dict[str, list[int]]] = {
    "one item, the lowest": [0],
    "one item, the highest": [_LAST],
    "one item, the first of the second bucket": [2**29],
    "one item, the last of the first bucket": [2**29 - 1],
    "both ends": [0, _LAST],
    "neighbours": [4, 5, 6],
    "ends of a bucket": [2**28 - 1, 2**28, 2**29 - 1, 2**29],
    "a dense run longer than a word": list(range(500_000, 500_200)),
    "a dense run at the end": list(range(_LAST - 70, _LAST + 1)),
    "a dense run at the start": list(range(130)),
    "far apart": [number * 9_999_999 for number in range(101)],
    "seven": [number * number * 1_000 for number in range(1, 8)],
    "eight": [number * number * 1_000 for number in range(1, 9)],
    "nine": [number * number * 1_000 for number in range(1, 10)],
    "clusters": sorted({number % 7 + number // 7 * 10_000_019 for number in range(350)}),
}


def vectors() -> Vectors:
    taken: set[str] = set()
    for note, items in _SETS.items():
        packed = ItemSet.of(items).packed()
        yield f"revocations/{named(f'items {note}', taken)}", _right_set(note, len(items), packed)
    for note, (n, packed) in _wrong_sets().items():
        assert error_of(lambda n=n, packed=packed: ItemSet.read(n, packed)) == "TrustMalformed", note
        yield (
            f"revocations/{named(f'items wrong {note}', taken)}",
            {
                "kind": "item-set",
                "note": note,
                "n": n,
                "packed_hex": packed.hex(),
                "set": None,
                "expected": {"error": "TrustMalformed"},
            },
        )
    yield "revocations/questions", _questions()


def _right_set(note: str, n: int, packed: bytes) -> dict[str, Any]:
    content = plain_json.item_set(n, packed)
    near = {item + step for item in (*content["items"][:3], *content["items"][-3:]) for step in (-1, 0, 1)}
    asked = sorted(item for item in {*near, 0, _LAST, _LAST // 2} if 0 <= item <= _LAST)
    read = ItemSet.read(n, packed)
    return {
        "kind": "item-set",
        "note": note,
        "n": n,
        "packed_hex": packed.hex(),
        "set": content,
        "queries": [{"item": item, "held": item in read} for item in asked],
        "expected": {"error": None},
    }


def _wrong_sets() -> dict[str, tuple[int, bytes]]:
    one, three, run = (ItemSet.of(items).packed() for items in ([5], [4, 5, 6], list(range(200))))
    low_bits = plain_json.item_set(3, three)["low_bits"]
    twice = _with_lows(three, low_bits, [4, 4, 6])
    falling = _with_lows(three, low_bits, [4, 6, 5])
    above = ItemSet.of([_LAST]).packed()
    above = (int.from_bytes(above[:4], "little") + 1).to_bytes(4, "little") + above[4:]
    return {
        "no items": (0, b""),
        "a byte short": (1, one[:-1]),
        "a byte more": (1, one + b"\0"),
        "one more than there are": (4, three),
        "one fewer than there are": (2, three),
        "an item twice": (3, twice),
        "items that fall": (3, falling),
        "an item of a thousand million": (1, above),
        "padding of the lower bits not zero": (1, one[:3] + bytes([one[3] | 0x80]) + one[4:]),
        "padding of the upper bits not zero": (1, one[:-1] + bytes([one[-1] | 0x80])),
        "a one missing in the upper bits": (200, run[:-60] + bytes(60)),
        "upper bits without their last zero": (1, one[:4] + b"\x04"),
        "n far above what fits": (10**9, one),
        "n above the universe": (10**9 + 1, one),
    }


def _with_lows(packed: bytes, low_bits: int, items: list[int]) -> bytes:
    cut = (len(items) * low_bits + 7) // 8
    return sum(item << at * low_bits for at, item in enumerate(items)).to_bytes(cut, "little") + packed[cut:]


def _questions() -> dict[str, Any]:
    revocations = Revocations.collect(
        [3, 99_999],
        [(GTIN_A, 10, 20), (GTIN_A, 22, 22), (GTIN_A, 99_999, 99_999), (GTIN_B, 0, 0)],
        [(GTIN_A, 30, 0), (GTIN_A, 30, _LAST), (GTIN_A, 15, 1), (GTIN_B, 1, 7)],
    )
    index = RevocationIndex(revocations)
    asked = [
        (kid, gtin, order, item)
        for kid, gtin, order, item in (
            (1, GTIN_A, 9, 1),
            (1, GTIN_A, 10, 1),
            (1, GTIN_A, 20, 1),
            (1, GTIN_A, 21, 1),
            (1, GTIN_A, 22, 1),
            (1, GTIN_A, 23, 1),
            (1, GTIN_A, 99_998, 1),
            (1, GTIN_A, 99_999, 1),
            (1, GTIN_B, 0, 5),
            (1, GTIN_B, 1, 5),
            (1, GTIN_B, 1, 7),
            (1, GTIN_A, 30, 0),
            (1, GTIN_A, 30, 1),
            (1, GTIN_A, 30, _LAST),
            (1, GTIN_A, 30, _LAST - 1),
            (1, GTIN_A, 15, 1),
            (1, GTIN_A_CASE, 15, 1),
            (3, GTIN_A, 1, 1),
            (99_999, GTIN_A, 15, 1),
            (4, GTIN_A, 1, 1),
        )
    ]
    return {
        "kind": "revocations",
        "note": "what of a code is revoked: the key, else the order, else the item",
        "revocations": plain_json.revocations(revocations_to_cbor(revocations)),
        "queries": [
            {
                "kid": kid,
                "gtin": gtin,
                "order": order,
                "item": item,
                "revoked": index.what_is_revoked(_code(kid, gtin, order, item)),
            }
            for kid, gtin, order, item in asked
        ],
    }


def _code(kid: int, gtin: str, order: int, item: int) -> CodeText:
    return CodeText(1, kid, gtin, f"{order:05d}{item:09d}", bytes(64))
