"""Every custody, one contract: keys made, used and refused alike, whether in a file, a token or a KMS."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offline_sdk.algorithms import Algorithm, public_key_is_safe, signature_is_right
from offline_sdk.p256 import P256_ORDER, S_MAX
from signer.custody import Custody, CustodyError, PrivateKeyMissing, p256_signature, require_pair
from signer.custody.file import FileCustody
from signer.custody.kms import KmsCustody

NAME = "key-00001-20260501"
Open = Callable[[], Custody]
"""The same keys again, as another process would open them."""
KINDS = ["file", "token", "kms"]


@pytest.fixture(params=KINDS)
def custody(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if request.param == "file":
        request.getfixturevalue("cheap_derivation")
        return lambda: FileCustody(tmp_path / "keys", lambda: "correct horse battery staple")
    if request.param == "token":
        token = request.getfixturevalue("token")
        opened: Open = token.custody
        return opened
    url = request.getfixturevalue("kms").url
    return lambda: KmsCustody(url, "test/")


@pytest.fixture
def moto(aws: None, moto_url: str, request: pytest.FixtureRequest) -> Open:
    return lambda: KmsCustody(moto_url, f"{request.node.name.replace('[', '-').strip(']')}/")


ALGORITHMS = pytest.mark.parametrize("algorithm", list(Algorithm), ids=lambda algorithm: algorithm.label)


def keeps_a_key(custody: Open, algorithm: Algorithm) -> None:
    public = custody().create(NAME, algorithm)
    assert public_key_is_safe(algorithm, public)
    opened = custody()
    assert opened.open(NAME) == (algorithm, public)
    messages = [bytes([number]) * (number + 1) for number in range(60)]
    signatures = opened.sign_many(NAME, messages)
    assert len(signatures) == 60
    for message, signature in zip(messages, signatures, strict=True):
        assert len(signature) == 64
        assert signature_is_right(algorithm, public, message, signature), "in order, and in its one form"


@ALGORITHMS
def test_a_key_signs_what_its_public_key_verifies(custody: Open, algorithm: Algorithm) -> None:
    keeps_a_key(custody, algorithm)


def test_the_public_simulator_keeps_p256_keys(moto: Open) -> None:
    keeps_a_key(moto, Algorithm.ESP256)


def test_a_key_that_the_public_simulator_cannot_make_is_a_clear_refusal(moto: Open) -> None:
    # It knows no Ed25519 yet; the day it does, this test says so, and `custody` may use it.
    with pytest.raises(CustodyError, match=r"refused create_key: ValidationException"):
        moto().create(NAME, Algorithm.ED25519)


@pytest.mark.parametrize("count", [0, 1, 2, 17])
@ALGORITHMS
def test_there_are_as_many_signatures_as_messages(custody: Open, algorithm: Algorithm, count: int) -> None:
    custody().create(NAME, algorithm)
    assert len(custody().sign_many(NAME, [b"x"] * count)) == count


@ALGORITHMS
def test_a_name_is_taken_once(custody: Open, algorithm: Algorithm) -> None:
    public = custody().create(NAME, Algorithm.ED25519)
    keeper = custody()
    with pytest.raises(CustodyError, match="exists already"):
        keeper.create(NAME, algorithm)
    assert keeper.open(NAME) == (Algorithm.ED25519, public)


def test_a_key_that_is_not_there_is_told_as_missing(custody: Open) -> None:
    custody().create(NAME, Algorithm.ED25519)
    with pytest.raises(PrivateKeyMissing):
        custody().open("key-00002")
    with pytest.raises(PrivateKeyMissing):
        custody().sign_many("key-00002", [b"x"])


def test_two_keys_are_two_keys(custody: Open) -> None:
    keeper = custody()
    publics = [keeper.create(f"key-{number}", algorithm) for number, algorithm in enumerate([*Algorithm] * 2)]
    assert len(set(publics)) == 4
    for number, (algorithm, public) in enumerate(zip([*Algorithm] * 2, publics, strict=True)):
        assert keeper.open(f"key-{number}") == (algorithm, public)
        assert signature_is_right(algorithm, public, b"x", keeper.sign_many(f"key-{number}", [b"x"])[0])


def test_ed25519_signatures_are_the_same_each_time(custody: Open) -> None:
    custody().create(NAME, Algorithm.ED25519)
    assert custody().sign_many(NAME, [b"x"]) == custody().sign_many(NAME, [b"x"])


@pytest.mark.parametrize("name", ["a", "0", "-", "a" * 64])
def test_good_names_make_keys(custody: Open, name: str) -> None:
    custody().create(name, Algorithm.ED25519)
    custody().open(name)


@pytest.mark.parametrize("name", ["", "a" * 65, "A", "a_b", "../a", "a/b", "a\n", "a\x00b", "钥匙"])
def test_other_names_are_refused_before_anything_is_asked(custody: Open, name: str) -> None:
    for use in (
        lambda: custody().create(name, Algorithm.ED25519),
        lambda: custody().open(name),
        lambda: custody().sign_many(name, [b"x"]),
    ):
        with pytest.raises(CustodyError, match="a key name is"):
            use()


@given(r=st.integers(1, P256_ORDER - 1), s=st.integers(1, P256_ORDER - 1))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_p256_signature_and_its_twin_have_one_form(r: int, s: int) -> None:
    signature = p256_signature(r, s)
    assert signature == p256_signature(r, P256_ORDER - s)
    assert len(signature) == 64
    assert int.from_bytes(signature[:32], "big") == r
    assert int.from_bytes(signature[32:], "big") in (s, P256_ORDER - s)
    assert int.from_bytes(signature[32:], "big") <= S_MAX


@pytest.mark.parametrize(("s", "expected"), [(S_MAX - 1, S_MAX - 1), (S_MAX, S_MAX), (S_MAX + 1, S_MAX)])
def test_half_the_order_is_the_largest_s(s: int, expected: int) -> None:
    assert int.from_bytes(p256_signature(1, s)[32:], "big") == expected


@ALGORITHMS
def test_a_machine_of_another_dialect_is_found_out(
    tmp_path: Path, cheap_derivation: None, algorithm: Algorithm
) -> None:
    keeper = FileCustody(tmp_path, lambda: "correct horse battery staple")
    public, other = keeper.create("one", algorithm), keeper.create("other", algorithm)
    sign = {name: lambda message, name=name: keeper.sign_many(name, [message])[0] for name in ("one", "other")}
    require_pair("one", algorithm, public, sign["one"])
    for wrong_public, wrong_sign in (
        (other, sign["one"]),
        (public, sign["other"]),
        (public, lambda _message: b""),
        (public, lambda message: sign["one"](message) + b"\x00"),
        (public, lambda message: sign["one"](message[:-1])),
        (public[:-1], sign["one"]),
        (bytes(len(public)), sign["one"]),
        (b"", sign["one"]),
    ):
        with pytest.raises(CustodyError, match="does not sign as its public key says"):
            require_pair("one", algorithm, wrong_public, wrong_sign)
