"""The vault: what is sealed opens in its own place, with its own key, unaltered, or not at all."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import vault as vaults
from kit.errors import ConfigurationError
from kit.vault import Vault, VaultSealBroken

KEY = bytes(range(32))


@given(plaintext=st.binary(max_size=200), context=st.binary(max_size=40))
def test_what_is_sealed_opens_in_its_place(plaintext: bytes, context: bytes) -> None:
    vault = Vault(KEY)
    sealed = vault.seal(plaintext, context)
    assert vault.unseal(sealed, context) == plaintext
    assert len(sealed) == len(plaintext) + 28


@given(context=st.binary(max_size=40), other=st.binary(max_size=40))
def test_it_does_not_open_in_another_place(context: bytes, other: bytes) -> None:
    vault = Vault(KEY)
    sealed = vault.seal(b"13800138000", context)
    if other != context:
        with pytest.raises(VaultSealBroken):
            vault.unseal(sealed, other)


@given(data=st.data())
def test_it_does_not_open_when_any_bit_was_altered(data: st.DataObject) -> None:
    vault = Vault(KEY)
    sealed = bytearray(vault.seal(b"13800138000", b"place"))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(VaultSealBroken):
        vault.unseal(bytes(sealed), b"place")


@pytest.mark.parametrize("length", [0, 1, 11, 12, 27, 28])
def test_a_fragment_does_not_open(length: int) -> None:
    with pytest.raises(VaultSealBroken):
        Vault(KEY).unseal(bytes(length), b"place")


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(VaultSealBroken):
        Vault(vaults.new_key()).unseal(Vault(KEY).seal(b"x", b"place"), b"place")


def test_sealing_twice_gives_different_bytes() -> None:
    assert Vault(KEY).seal(b"x", b"place") != Vault(KEY).seal(b"x", b"place")


def test_a_fingerprint_is_the_same_for_ever() -> None:
    # Stored: phone numbers and coupon codes are found by it. It may never change.
    assert (
        Vault(KEY).fingerprint("member-phone", "1\x00+8613800138000").hex()
        == "9bb0afba1524bb20f12809a1d3d2e62058683ce2d42005d5c45333f2713acc4c"
    )


def test_what_an_old_server_sealed_still_opens() -> None:
    # Stored: nonce, ciphertext, tag, under the sealing key derived from the vault key. It may never change.
    sealed = bytes.fromhex("700b3f60210120f6f8b72d1101fff10e8c459cb441b41502ca481cbc9918ba050c4322a6538464")
    assert Vault(KEY).unseal(sealed, b"place") == b"13800138000"


def test_fingerprints_differ_by_purpose_value_and_key() -> None:
    vault = Vault(KEY)
    found = {
        vault.fingerprint("a", "value"),
        vault.fingerprint("b", "value"),
        vault.fingerprint("a", "other"),
        Vault(vaults.new_key()).fingerprint("a", "value"),
    }
    assert len(found) == 4


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_has_thirty_two_bytes(length: int) -> None:
    with pytest.raises(ConfigurationError, match="FANXING_VAULT_KEY_FILE"):
        Vault(bytes(length))


def test_a_vault_is_loaded_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "vault.key"
    path.write_text(KEY.hex() + "\n")
    assert vaults.load(path).fingerprint("a", "b") == Vault(KEY).fingerprint("a", "b")


@pytest.mark.parametrize("content", [None, "", "not hex", KEY.hex()[:-2]])
def test_a_missing_or_wrong_key_file_names_the_variable_and_not_the_content(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "vault.key"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match="FANXING_VAULT_KEY_FILE") as refusal:
        vaults.load(path)
    assert not content or content not in str(refusal.value)


def test_many_that_are_sealed_open_each_in_its_own_place_and_no_nonce_comes_twice() -> None:
    vault, places = Vault(KEY), [bytes([number]) for number in range(100)]
    sealed = vault.seal_many([b"the same"] * 100, places)
    assert [vault.unseal(one, place) for one, place in zip(sealed, places, strict=True)] == [b"the same"] * 100
    assert len({one[:12] for one in sealed}) == 100
    with pytest.raises(VaultSealBroken):
        vault.unseal(sealed[0], places[1])
