"""Serials: FF1 against the standard's samples, against a textbook implementation, and against the published vectors."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from codes.serials import ITEM_NUMBERS, SerialKeyMissing, SerialScheme, create_serial_key, scheme_of
from kit.db import Database
from kit.vault import Vault, VaultSealBroken
from tests.codes.conftest import GTIN, Market, vector_id, vectors

LAST = ITEM_NUMBERS - 1
BORDERS = (0, 1, 9_999, 10_000, 99_999, 100_000, 499_999_999, 999_900_000, LAST - 1, LAST)
KEYS = st.binary(min_size=32, max_size=32)
GTINS = st.from_regex(r"[0-9]{14}", fullmatch=True)
ORDERS = st.integers(0, 99_999)
INDEXES = st.one_of(st.sampled_from(BORDERS), st.integers(0, LAST))
NO_DEADLINE = settings(deadline=None)


def textbook_ff1(key: bytes, radix: int, tweak: bytes, numerals: Sequence[int]) -> list[int]:
    """FF1.Encrypt as NIST SP 800-38G, algorithm 7, writes it, step by step, for any radix and length."""

    def num(digits: Sequence[int]) -> int:
        value = 0
        for digit in digits:
            value = value * radix + digit
        return value

    def string(value: int, length: int) -> list[int]:
        digits = []
        for _ in range(length):
            value, digit = divmod(value, radix)
            digits.append(digit)
        return digits[::-1]

    def prf(blocks: bytes) -> bytes:
        """Algorithm 6: the last block of CBC from a zero block."""
        return Cipher(AES(key), CBC(bytes(16))).encryptor().update(blocks)[-16:]

    n, t = len(numerals), len(tweak)
    u, v = n // 2, n - n // 2
    a, b_half = list(numerals[:u]), list(numerals[u:])
    b = ((radix**v - 1).bit_length() + 7) // 8  # ceil(ceil(v log2 radix) / 8)
    d = 4 * -(-b // 4) + 4
    p = bytes((1, 2, 1)) + radix.to_bytes(3, "big") + bytes((10, u % 256)) + n.to_bytes(4, "big") + t.to_bytes(4, "big")
    for i in range(10):
        q = tweak + bytes((-t - b - 1) % 16) + bytes((i,)) + num(b_half).to_bytes(b, "big")
        r = prf(p + q)
        s = r
        for j in range(1, -(-d // 16)):
            s += prf(bytes(x ^ y for x, y in zip(r, j.to_bytes(16, "big"), strict=True)))
        y = int.from_bytes(s[:d], "big")
        m = u if i % 2 == 0 else v
        c = string((num(a) + y) % radix**m, m)
        a, b_half = b_half, c
    return a + b_half


AES128 = "2B7E151628AED2A6ABF7158809CF4F3C"
AES192 = AES128 + "EF4359D8D580AA4F"
AES256 = AES128 + "EF4359D8D580AA4F7F036D6F04FC6A94"
TWEAK10, TWEAK36 = "39383736353433323130", "3737373770717273373737"
ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


# The sample vectors that NIST published with SP 800-38G, FF1 samples 1 to 9.
@pytest.mark.parametrize(
    ("key", "radix", "tweak", "plain", "encrypted"),
    [
        (AES128, 10, "", "0123456789", "2433477484"),
        (AES128, 10, TWEAK10, "0123456789", "6124200773"),
        (AES128, 36, TWEAK36, "0123456789abcdefghi", "a9tv40mll9kdu509eum"),
        (AES192, 10, "", "0123456789", "2830668132"),
        (AES192, 10, TWEAK10, "0123456789", "2496655549"),
        (AES192, 36, TWEAK36, "0123456789abcdefghi", "xbj3kv35jrawxv32ysr"),
        (AES256, 10, "", "0123456789", "6657667009"),
        (AES256, 10, TWEAK10, "0123456789", "1001623463"),
        (AES256, 36, TWEAK36, "0123456789abcdefghi", "xs8a0azh2avyalyzuwd"),
    ],
)
def test_the_textbook_gives_the_standards_samples(key: str, radix: int, tweak: str, plain: str, encrypted: str) -> None:
    numerals = [ALPHABET.index(character) for character in plain]
    result = textbook_ff1(bytes.fromhex(key), radix, bytes.fromhex(tweak), numerals)
    assert "".join(ALPHABET[digit] for digit in result) == encrypted


@NO_DEADLINE
@given(key=KEYS, gtin=GTINS, order=ORDERS, index=INDEXES)
def test_an_item_number_is_what_the_textbook_says(key: bytes, gtin: str, order: int, index: int) -> None:
    (number,) = SerialScheme(key).item_numbers(gtin, order, index, 1).tolist()
    tweak = f"{gtin}{order:05d}".encode()
    digits = textbook_ff1(key, 10, tweak, [int(digit) for digit in f"{index:09d}"])
    assert f"{number:09d}" == "".join(map(str, digits))


@pytest.mark.parametrize("vector", vectors()["valid"], ids=vector_id)
def test_published_serials_come_from_their_issue_index_and_lead_back(
    vector: dict[str, Any], scheme: SerialScheme
) -> None:
    gtin, order, index = vector["gtin"], int(vector["order"]), vector["index"]
    (number,) = scheme.item_numbers(gtin, order, index, 1).tolist()
    assert f"{order:05d}{number:09d}" == vector["serial"]
    assert scheme.issue_index(gtin, order, number) == index


@NO_DEADLINE
@given(key=KEYS, gtin=GTINS, order=ORDERS, index=INDEXES)
def test_an_item_number_leads_back_to_its_issue_index(key: bytes, gtin: str, order: int, index: int) -> None:
    scheme = SerialScheme(key)
    (number,) = scheme.item_numbers(gtin, order, index, 1).tolist()
    assert 0 <= number <= LAST
    assert scheme.issue_index(gtin, order, number) == index


@NO_DEADLINE
@given(key=KEYS, number=INDEXES)
def test_every_item_number_has_an_issue_index(key: bytes, number: int) -> None:
    scheme = SerialScheme(key)
    index = scheme.issue_index(GTIN, 1, number)
    assert 0 <= index <= LAST
    assert scheme.item_numbers(GTIN, 1, index, 1).tolist() == [number]


@pytest.mark.parametrize("start", [0, LAST - 1_999])
def test_a_batch_is_its_items_one_by_one(scheme: SerialScheme, start: int) -> None:
    batch = scheme.item_numbers(GTIN, 99_999, start, 2_000).tolist()
    assert [scheme.issue_index(GTIN, 99_999, number) for number in batch] == list(range(start, start + 2_000))


def test_a_million_item_numbers_are_a_million_different_ones(scheme: SerialScheme) -> None:
    numbers = scheme.item_numbers(GTIN, 1, 0, 1_000_000)
    assert len(np.unique(numbers)) == 1_000_000
    assert numbers.min() >= 0
    assert numbers.max() <= LAST
    # They tell nothing of volumes: a million of a thousand million lie all over the range.
    assert np.all(np.histogram(numbers, bins=10, range=(0, ITEM_NUMBERS))[0] > 98_000)


def test_orders_products_and_keys_have_permutations_of_their_own(scheme: SerialScheme) -> None:
    seen = {
        tuple(of.item_numbers(gtin, order, 0, 4).tolist())
        for of in (scheme, SerialScheme(bytes(32)))
        for gtin in (GTIN, "09506000134352")
        for order in (1, 2)
    }
    assert len(seen) == 8


@pytest.mark.parametrize(("start", "count"), [(0, 0), (0, 1), (LAST, 1), (LAST - 1, 2), (ITEM_NUMBERS, 0)])
def test_issue_indexes_at_the_borders_are_served(scheme: SerialScheme, start: int, count: int) -> None:
    assert len(scheme.item_numbers(GTIN, 1, start, count)) == count


@pytest.mark.parametrize(("start", "count"), [(-1, 1), (0, -1), (5, -1), (LAST, 2), (ITEM_NUMBERS, 1), (0, 10**9 + 1)])
def test_issue_indexes_past_the_borders_are_refused(scheme: SerialScheme, start: int, count: int) -> None:
    with pytest.raises(ValueError, match=r"0\.\.999999999"):
        scheme.item_numbers(GTIN, 1, start, count)


@pytest.mark.parametrize("number", [-1, ITEM_NUMBERS])
def test_item_numbers_past_the_borders_are_refused(scheme: SerialScheme, number: int) -> None:
    with pytest.raises(ValueError, match=r"0\.\.999999999"):
        scheme.issue_index(GTIN, 1, number)


@pytest.mark.parametrize(
    ("gtin", "order"), [(GTIN, -1), (GTIN, 100_000), (GTIN[1:], 100_000), (GTIN[1:], 1), (GTIN + "0", 1), ("", 1)]
)
def test_a_tweak_is_fourteen_digits_and_an_order_number(scheme: SerialScheme, gtin: str, order: int) -> None:
    with pytest.raises(ValueError, match="14 digits"):
        scheme.item_numbers(gtin, order, 0, 1)
    with pytest.raises(ValueError, match="14 digits"):
        scheme.issue_index(gtin, order, 0)


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_a_serial_key_is_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SerialScheme(bytes(length))


def test_threads_may_share_a_permutation(scheme: SerialScheme) -> None:
    expected = scheme.item_numbers(GTIN, 1, 0, 50_000).tolist()
    faults: list[object] = []

    def generate() -> None:
        try:
            if scheme.item_numbers(GTIN, 1, 0, 50_000).tolist() != expected:
                faults.append("other numbers")
        except Exception as error:
            faults.append(error)

    def ask() -> None:
        try:
            if [scheme.issue_index(GTIN, 1, number) for number in expected[:2_000]] != list(range(2_000)):
                faults.append("other indexes")
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for work in (generate, ask) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


async def test_an_issuers_permutation_is_kept_sealed_and_comes_back(database: Database, market: Market) -> None:
    async with database.reading() as session:
        assert market.issuer.issuer_id is not None
        first = await scheme_of(session, market.vault, market.issuer.issuer_id)
        second = await scheme_of(session, Vault(market.vault_key), market.issuer.issuer_id)
        assert first.item_numbers(GTIN, 1, 0, 9).tolist() == second.item_numbers(GTIN, 1, 0, 9).tolist()
        with pytest.raises(VaultSealBroken):
            await scheme_of(session, Vault(bytes(32)), market.issuer.issuer_id)
        with pytest.raises(SerialKeyMissing):
            await scheme_of(session, market.vault, 4_711)


async def test_an_issuers_serial_key_is_never_replaced(database: Database, market: Market) -> None:
    assert market.issuer.issuer_id is not None
    with pytest.raises(IntegrityError):
        async with database.writing() as session:
            create_serial_key(session, market.vault, market.issuer.issuer_id)
