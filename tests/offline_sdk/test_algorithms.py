import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from offline_sdk.algorithms import Algorithm, public_key_is_safe, signature_is_right
from offline_sdk.p256 import P256_ORDER, S_MAX

ED25519 = SigningKey(bytes(range(32)))
ED25519_PUBLIC = bytes(ED25519.verify_key)
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493
P256 = ec.derive_private_key(20_260_501, ec.SECP256R1())
P256_PUBLIC = P256.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
MESSAGE = b"one item, one code"


def p256_numbers(message: bytes = MESSAGE) -> tuple[int, int]:
    """A signature whose s is in the lower half."""
    r, s = decode_dss_signature(P256.sign(message, ec.ECDSA(SHA256())))
    return r, min(s, P256_ORDER - s)


def raw(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


# The points of small order and their non-canonical encodings ("Taming the many EdDSAs", 2020, table 1), and y = p + 2.
UNSAFE_ED25519 = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "efffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("public_hex", UNSAFE_ED25519)
def test_ed25519_key_of_small_order_or_not_canonical_is_not_safe(public_hex: str) -> None:
    assert not public_key_is_safe(Algorithm.ED25519, bytes.fromhex(public_hex))


# x from 0: on the curve, then not; the field's size; and other heads than those of a compressed point.
@pytest.mark.parametrize(
    ("public_hex", "safe"),
    [
        ("02" + "00" * 32, True),
        ("03" + f"{5:064x}", True),
        ("02" + f"{1:064x}", False),
        ("02" + f"{2**256 - 2**224 + 2**192 + 2**96 - 1:064x}", False),
        ("03" + "ff" * 32, False),
        ("00" + "00" * 32, False),
        ("04" + "00" * 32, False),
        ("02" + "00" * 31, False),
        ("02" + "00" * 33, False),
    ],
)
def test_p256_key_is_safe_when_it_is_a_compressed_point_of_the_curve(public_hex: str, safe: bool) -> None:
    assert public_key_is_safe(Algorithm.ESP256, bytes.fromhex(public_hex)) is safe


@given(st.integers(0, 2**256 - 1), st.sampled_from([b"\x02", b"\x03"]))
def test_p256_key_is_safe_when_openssl_takes_it(x: int, head: bytes) -> None:
    public = head + x.to_bytes(32, "big")
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
    except ValueError:
        assert not public_key_is_safe(Algorithm.ESP256, public)
    else:
        assert public_key_is_safe(Algorithm.ESP256, public)


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("public", [None, b"", bytearray(ED25519_PUBLIC), "00" * 32, bytes(64)], ids=repr)
def test_what_is_no_public_key_is_not_safe(algorithm: Algorithm, public: Any) -> None:
    assert not public_key_is_safe(algorithm, public)


def test_a_key_is_not_safe_for_the_other_algorithm() -> None:
    assert public_key_is_safe(Algorithm.ED25519, ED25519_PUBLIC)
    assert public_key_is_safe(Algorithm.ESP256, P256_PUBLIC)
    assert not public_key_is_safe(Algorithm.ED25519, P256_PUBLIC)
    assert not public_key_is_safe(Algorithm.ESP256, ED25519_PUBLIC)


def test_numbers_are_those_of_the_registry() -> None:
    # RFC 9864, 2.2. May never change: they stand in signed documents.
    assert {algorithm.label: int(algorithm) for algorithm in Algorithm} == {"Ed25519": -19, "P-256": -9}


def test_right_signatures_are_right_and_none_of_another_message() -> None:
    ed25519, p256 = ED25519.sign(MESSAGE).signature, raw(*p256_numbers())
    assert signature_is_right(Algorithm.ED25519, ED25519_PUBLIC, MESSAGE, ed25519)
    assert signature_is_right(Algorithm.ESP256, P256_PUBLIC, MESSAGE, p256)
    assert not signature_is_right(Algorithm.ED25519, ED25519_PUBLIC, MESSAGE + b"!", ed25519)
    assert not signature_is_right(Algorithm.ESP256, P256_PUBLIC, MESSAGE + b"!", p256)


def test_any_flipped_bit_makes_a_signature_wrong() -> None:
    for algorithm, public, signature in (
        (Algorithm.ED25519, ED25519_PUBLIC, ED25519.sign(MESSAGE).signature),
        (Algorithm.ESP256, P256_PUBLIC, raw(*p256_numbers())),
    ):
        for bit in range(512):
            flipped = bytearray(signature)
            flipped[bit // 8] ^= 1 << bit % 8
            assert not signature_is_right(algorithm, public, MESSAGE, bytes(flipped))


def test_ed25519_signature_has_no_second_form() -> None:
    signature = ED25519.sign(MESSAGE).signature
    s = int.from_bytes(signature[32:], "little") + ED25519_ORDER
    assert not signature_is_right(Algorithm.ED25519, ED25519_PUBLIC, MESSAGE, signature[:32] + s.to_bytes(32, "little"))


# Signatures of b"cofactor" that only the holder of a key can make, and about which libraries disagree ("Taming the many
# EdDSAs", 2020, 5): R with a part of order 8; R the neutral point; twice a key with a part of order 2, once so that the
# equation holds by itself, once so that it holds only when multiplied by 8.
PRIME_KEY = "7767a3242dc9b58bbc68488c1265cc6cc5f26c6f3c88a5d55e901b0734dca572"
MIXED_KEY = "76985cdbd2364a744397b773ed9a33933a0d9390c3775a2aa16fe4f8cb235a8d"
COFACTORED = [
    (PRIME_KEY, "b173d924ce67045388a4ba498b5f15e5976008165ec5e46993a084294f73e076"
     "e302fbb43fa2912d00eeadb0666a2d7ad55ef37e95625dbace8e7be3c48ca00b", False),
    (PRIME_KEY, "0100000000000000000000000000000000000000000000000000000000000000"
     "4d54ae3e61b4d943d4816963ee2cf1c37fadb818b1e9ede594d30d54a191e80d", False),
    (MIXED_KEY, "e7caaa83373a94afae43fec59b447c99ba282b19a7616c24c785ad8966a1e10e"
     "e4272f342722fe1d5402f58c48933f5ddb863d00f04fbedceea470034be4450b", True),
    (MIXED_KEY, "e6050df522ee2d93ab024997bee05d000a4c6dcf2f3acb8c6cc79499ed9422db"
     "ffdea1bdb8405a0f75f6eea81292aaeb054672a7c4466bbc98c499494c25e003", False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("public_hex", "signature_hex", "right"), COFACTORED, ids=["R mixed", "R one", "A", "A times 8"]
)
def test_ed25519_is_verified_without_the_cofactor(public_hex: str, signature_hex: str, right: bool) -> None:
    public, signature = bytes.fromhex(public_hex), bytes.fromhex(signature_hex)
    assert public_key_is_safe(Algorithm.ED25519, public)
    assert signature_is_right(Algorithm.ED25519, public, b"cofactor", signature) is right


@pytest.mark.parametrize("length", [0, 63, 65])
def test_signature_of_another_length_is_wrong_wherever_the_message_begins(length: int) -> None:
    signed = bytes(ED25519.sign(MESSAGE))
    assert not signature_is_right(Algorithm.ED25519, ED25519_PUBLIC, signed[length:], signed[:length])
    r, s = p256_numbers()
    assert not signature_is_right(Algorithm.ESP256, P256_PUBLIC, MESSAGE, (raw(r, s) + b"\0")[:length])


def test_p256_signature_has_no_second_form() -> None:
    r, s = p256_numbers()
    assert signature_is_right(Algorithm.ESP256, P256_PUBLIC, MESSAGE, raw(r, s))
    assert not signature_is_right(Algorithm.ESP256, P256_PUBLIC, MESSAGE, raw(r, P256_ORDER - s))


def test_p256_takes_s_up_to_half_the_order() -> None:
    # s = (z + r d) / k: the message's hash z and r are given, so the private key d is chosen for the s that is wanted.
    z = int.from_bytes(hashlib.sha256(MESSAGE).digest(), "big")
    k = 1_234_567
    r = ec.derive_private_key(k, ec.SECP256R1()).public_key().public_numbers().x % P256_ORDER
    for s, right in ((S_MAX - 1, True), (S_MAX, True), (S_MAX + 1, False)):
        d = (s * k - z) * pow(r, -1, P256_ORDER) % P256_ORDER
        public_key = ec.derive_private_key(d, ec.SECP256R1()).public_key()
        public = public_key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        assert signature_is_right(Algorithm.ESP256, public, MESSAGE, raw(r, s)) is right


@pytest.mark.parametrize(("r", "s"), [(0, 0), (0, 1), (1, 0), (P256_ORDER, 1), (2**256 - 1, 1), (1, 2**256 - 1)])
def test_p256_numbers_out_of_range_are_wrong(r: int, s: int) -> None:
    assert not signature_is_right(Algorithm.ESP256, P256_PUBLIC, MESSAGE, raw(r, s))


def test_p256_without_its_package_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "cryptography.py").write_text("raise ImportError('not installed')")
    program = (
        "from offline_sdk import AlgorithmMissing, Signer; from offline_sdk.algorithms import *\n"
        f"Signer(Algorithm.ESP256, bytes.fromhex('{P256_PUBLIC.hex()}'))\n"
        "try: signature_is_right(Algorithm.ESP256, bytes.fromhex('%s'), b'', bytes(64))\n"
        % P256_PUBLIC.hex()
        + "except AlgorithmMissing as error: print(error.message)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'fanxing-offline-sdk[p256]'" in done.stdout
