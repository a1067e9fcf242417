"""File custody: key files that only the passphrase opens, and only as they were written."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import signer.custody.file
from offline_sdk.algorithms import Algorithm
from signer.custody import CustodyError
from signer.custody.file import PASSPHRASE_CHARACTERS_MIN, FileCustody

PASSPHRASE = "correct horse battery staple"
NAME = "key-00001"


def custody(folder: Path, passphrase: str = PASSPHRASE) -> FileCustody:
    return FileCustody(folder, lambda: passphrase)


def key_file(folder: Path, name: str = NAME) -> Path:
    return folder / f"{name}.key.json"


def seed_in(path: Path, name: str = NAME, passphrase: str = PASSPHRASE) -> bytes:
    """The private key, opened by nothing but the description of the format: these steps may never change."""
    record = json.loads(path.read_bytes())
    kdf = record["kdf"]
    opening = Argon2id(
        salt=bytes.fromhex(kdf["salt"]),
        length=32,
        iterations=kdf["passes"],
        lanes=kdf["lanes"],
        memory_cost=kdf["memory_kib"],
    ).derive(passphrase.encode())
    sealed, public = bytes.fromhex(record["sealed"]), bytes.fromhex(record["public"])
    context = b"fanxing/custody/file/2\x00" + name.encode() + b"\x00" + record["algorithm"].encode() + b"\x00" + public
    return AESGCM(opening).decrypt(sealed[:12], sealed[12:], context)


@pytest.fixture
def folder(tmp_path: Path, cheap_derivation: None) -> Path:
    """A folder with one key."""
    custody(tmp_path).create(NAME, Algorithm.ED25519)
    return tmp_path


def test_signatures_come_in_the_order_of_their_messages(folder: Path) -> None:
    messages = [f"message {number}".encode() for number in range(200)]
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(json.loads(key_file(folder).read_bytes())["public"]))
    signatures = custody(folder).sign_many(NAME, messages)
    assert len(signatures) == 200
    for message, signature in zip(messages, signatures, strict=True):
        assert len(signature) == 64
        public.verify(signature, message)


def test_no_message_gives_no_signature(folder: Path) -> None:
    assert custody(folder).sign_many(NAME, []) == []


def test_a_new_key_is_sealed_at_the_recommended_cost(tmp_path: Path) -> None:
    custody(tmp_path).create(NAME, Algorithm.ED25519)
    record = json.loads(key_file(tmp_path).read_bytes())
    assert (record["format"], record["algorithm"]) == ("fanxing-key-2", "Ed25519")
    # RFC 9106, 4, the second recommended option.
    salt = record["kdf"].pop("salt")
    assert record["kdf"] == {"name": "argon2id", "passes": 3, "memory_kib": 65_536, "lanes": 4}
    assert len(bytes.fromhex(salt)) == 16
    custody(tmp_path).open(NAME)


def test_a_key_file_is_what_its_description_says(folder: Path) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed_in(key_file(folder)))
    assert private.public_key().public_bytes_raw().hex() == json.loads(key_file(folder).read_bytes())["public"]
    assert custody(folder).sign_many(NAME, [b"x"]) == [private.sign(b"x")]


# Written by the first version. Backups hold files like this one, so it must open for ever.
OLD_FILE = """{
 "format": "fanxing-key-1",
 "kdf": {
  "name": "argon2id",
  "salt": "5592cabababaecf550f532d59f819345",
  "passes": 1,
  "memory_kib": 64,
  "lanes": 4
 },
 "public": "d56102d878e6f1f5ae1805afc5ca49635fa1139b31a4e5eb0ab92259c453fad9",
 "sealed": "fe3a0eb57e6a1c81d62f82cc7b1a490403a1cd7753f3f6166a94e9addc0b17b13c337160ad67547c\
c6d7a07e8284ea5eb38d0d87c9569c89e8a6d87d"
}
"""


def test_a_key_file_of_the_first_version_still_opens(tmp_path: Path) -> None:
    key_file(tmp_path).write_text(OLD_FILE)
    (signature,) = custody(tmp_path).sign_many(NAME, [b"fanxing"])
    assert signature.hex() == (
        "9afde2e5354ec825a42bfbf2c146caf1473b114de5eaa5f72f1aabd66e17b822"
        "d252985028f17db3a2537a35bcfd5756607d79374880283ac9bc768e6d95a503"
    )


def test_a_p256_key_file_is_what_its_description_says(tmp_path: Path, cheap_derivation: None) -> None:
    public = custody(tmp_path).create(NAME, Algorithm.ESP256)
    record = json.loads(key_file(tmp_path).read_bytes())
    assert (record["format"], record["algorithm"], record["public"]) == ("fanxing-key-2", "P-256", public.hex())
    scalar = int.from_bytes(seed_in(key_file(tmp_path)), "big")
    point = ec.derive_private_key(scalar, ec.SECP256R1()).public_key()
    assert point.public_bytes(Encoding.X962, PublicFormat.CompressedPoint) == public
    assert custody(tmp_path).open(NAME) == (Algorithm.ESP256, public)


def test_p256_signatures_from_a_file_are_the_same_each_time(tmp_path: Path, cheap_derivation: None) -> None:
    # An export that is made again must have the same bytes (RFC 6979).
    custody(tmp_path).create(NAME, Algorithm.ESP256)
    assert custody(tmp_path).sign_many(NAME, [b"x", b"y"]) == custody(tmp_path).sign_many(NAME, [b"x", b"y"])


@pytest.mark.parametrize("bad", list(range(8)))
def test_a_p256_file_damaged_anywhere_does_not_open(tmp_path: Path, cheap_derivation: None, bad: int) -> None:
    custody(tmp_path).create(NAME, Algorithm.ESP256)
    record = json.loads(key_file(tmp_path).read_bytes())
    field, at = (("public", 0), ("public", 1), ("public", 32), ("sealed", 0), ("sealed", 12), ("sealed", 43),
                 ("sealed", 44), ("sealed", 59))[bad]  # fmt: skip
    _flip(field, at=at)(record)
    key_file(tmp_path).write_text(json.dumps(record))
    with pytest.raises(CustodyError, match="does not open"):
        custody(tmp_path).open(NAME)


def test_keys_made_together_cost_one_derivation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    derived: list[int] = []

    def counted(**cost: Any) -> Argon2id:
        derived.append(1)
        return Argon2id(**cost)

    monkeypatch.setattr(signer.custody.file, "Argon2id", counted)
    keeper = custody(tmp_path)
    names = [f"key-{number:05d}" for number in range(1, 21)]
    for name in names:
        keeper.create(name, Algorithm.ED25519)
    assert len(derived) == 1
    again = custody(tmp_path)
    assert len({again.open(name) for name in names}) == 20
    assert len(derived) == 2
    custody(tmp_path).create("key-00021", Algorithm.ED25519)
    salts = {json.loads(key_file(tmp_path, name).read_bytes())["kdf"]["salt"] for name in [*names, "key-00021"]}
    assert len(salts) == 2, "another custody takes another salt"


def test_a_wrong_passphrase_is_not_remembered(folder: Path) -> None:
    answers = iter(["another passphrase", PASSPHRASE])
    keeper = FileCustody(folder, lambda: next(answers))
    with pytest.raises(CustodyError, match="does not open"):
        keeper.open(NAME)
    keeper.open(NAME)


def test_only_the_owner_can_read_a_key_file(folder: Path) -> None:
    assert stat.S_IMODE(key_file(folder).stat().st_mode) == 0o600


def test_the_folder_is_made_for_the_owner_alone(tmp_path: Path, cheap_derivation: None) -> None:
    custody(tmp_path / "keys").create(NAME, Algorithm.ED25519)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_neither_seed_nor_passphrase_stands_in_the_key_file(folder: Path) -> None:
    content, seed = key_file(folder).read_bytes(), seed_in(key_file(folder))
    for secret in (seed, seed.hex().encode(), PASSPHRASE.encode(), PASSPHRASE.encode().hex().encode()):
        assert secret not in content


def test_two_keys_are_two_keys(folder: Path) -> None:
    second = custody(folder).create("key-00002", Algorithm.ED25519)
    assert second.hex() != json.loads(key_file(folder).read_bytes())["public"]
    both = custody(folder)
    first_signature, second_signature = both.sign_many(NAME, [b"x"]) + both.sign_many("key-00002", [b"x"])
    Ed25519PublicKey.from_public_bytes(second).verify(second_signature, b"x")
    assert first_signature != second_signature


def test_an_existing_key_is_never_written_over(folder: Path) -> None:
    before = key_file(folder).read_bytes()
    with pytest.raises(CustodyError, match="exists already"):
        custody(folder).create(NAME, Algorithm.ED25519)
    assert key_file(folder).read_bytes() == before


def test_a_short_passphrase_makes_no_key(tmp_path: Path, cheap_derivation: None) -> None:
    with pytest.raises(CustodyError, match="at least 12 characters"):
        custody(tmp_path, "x" * (PASSPHRASE_CHARACTERS_MIN - 1)).create(NAME, Algorithm.ED25519)
    assert list(tmp_path.iterdir()) == []
    custody(tmp_path, "x" * PASSPHRASE_CHARACTERS_MIN).create(NAME, Algorithm.ED25519)


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE + " ", PASSPHRASE.upper(), "another passphrase"])
def test_a_wrong_passphrase_opens_nothing(folder: Path, passphrase: str) -> None:
    with pytest.raises(CustodyError, match="does not open") as refused:
        custody(folder, passphrase).sign_many(NAME, [b"x"])
    assert "FANXING_SIGNER_PASSPHRASE_FILE" in refused.value.hint
    assert PASSPHRASE not in str(refused.value)


def test_the_passphrase_is_asked_for_once_and_not_before_it_is_needed(folder: Path) -> None:
    asked: list[str] = []

    def answer() -> str:
        asked.append("")
        return PASSPHRASE

    keeper = FileCustody(folder, answer)
    assert asked == []
    keeper.open(NAME)
    keeper.sign_many(NAME, [b"x"])
    keeper.sign_many(NAME, [b"y"])
    assert len(asked) == 1


def test_nobody_is_asked_for_the_passphrase_of_a_key_that_is_not_there(folder: Path) -> None:
    def answer() -> str:
        raise AssertionError("asked for a passphrase")

    with pytest.raises(CustodyError, match="no private key named absent"):
        FileCustody(folder, answer).open("absent")


@pytest.mark.parametrize("name", ["a", "0", "-", "a-z-0-9", "a" * 64])
def test_good_names_make_keys(tmp_path: Path, cheap_derivation: None, name: str) -> None:
    custody(tmp_path).create(name, Algorithm.ED25519)
    custody(tmp_path).open(name)


@pytest.mark.parametrize(
    "name", ["", "a" * 65, "A", "a_b", "a.b", "../a", "/etc/a", "a/b", "a\n", "a\x00b", "钥匙", "٣"]
)
def test_a_name_never_leads_out_of_the_folder(tmp_path: Path, cheap_derivation: None, name: str) -> None:
    folder = tmp_path / "keys"
    with pytest.raises(CustodyError, match="a key name is"):
        custody(folder).create(name, Algorithm.ED25519)
    with pytest.raises(CustodyError, match="a key name is"):
        custody(folder).sign_many(name, [b"x"])
    assert list(tmp_path.iterdir()) == []


def _set(*path: str, to: object) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        for part in path[:-1]:
            record = record[part]
        record[path[-1]] = to

    return change


def _without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        for part in path[:-1]:
            record = record[part]
        del record[path[-1]]

    return change


def _flip(*path: str, at: int) -> Callable[[dict[str, Any]], None]:
    """Another last bit of one byte in a field of hex digits."""

    def change(record: dict[str, Any]) -> None:
        for part in path[:-1]:
            record = record[part]
        data = bytearray.fromhex(record[path[-1]])
        data[at] ^= 1
        record[path[-1]] = data.hex()

    return change


DAMAGE = {
    "format missing": _without("format"),
    "format unknown": _set("format", to="fanxing-key-3"),
    "format of the first version": _set("format", to="fanxing-key-1"),
    "algorithm missing": _without("algorithm"),
    "algorithm unknown": _set("algorithm", to="P-384"),
    "algorithm a number": _set("algorithm", to=-19),
    "algorithm a list": _set("algorithm", to=[]),
    "algorithm another": _set("algorithm", to="P-256"),
    "kdf missing": _without("kdf"),
    "kdf a list": _set("kdf", to=[]),
    "kdf name missing": _without("kdf", "name"),
    "kdf name unknown": _set("kdf", "name", to="argon2i"),
    "salt missing": _without("kdf", "salt"),
    "salt changed": _flip("kdf", "salt", at=0),
    "salt too short": _set("kdf", "salt", to="00"),
    "salt not hex": _set("kdf", "salt", to="zz" * 16),
    "passes missing": _without("kdf", "passes"),
    "passes changed": _set("kdf", "passes", to=2),
    "passes none": _set("kdf", "passes", to=0),
    "passes negative": _set("kdf", "passes", to=-1),
    "passes for hours": _set("kdf", "passes", to=101),
    "passes beyond a machine word": _set("kdf", "passes", to=2**70),
    "passes true": _set("kdf", "passes", to=True),
    "passes text": _set("kdf", "passes", to="1"),
    "passes fraction": _set("kdf", "passes", to=1.0),
    "memory missing": _without("kdf", "memory_kib"),
    "memory changed": _set("kdf", "memory_kib", to=128),
    "memory none": _set("kdf", "memory_kib", to=0),
    "memory of a data centre": _set("kdf", "memory_kib", to=2**32 - 1),
    "memory beyond a machine word": _set("kdf", "memory_kib", to=2**80),
    "lanes missing": _without("kdf", "lanes"),
    "lanes changed": _set("kdf", "lanes", to=2),
    "lanes none": _set("kdf", "lanes", to=0),
    "lanes too many": _set("kdf", "lanes", to=65),
    "public missing": _without("public"),
    "public null": _set("public", to=None),
    "public empty": _set("public", to=""),
    "public changed": _flip("public", at=31),
    "public not hex": _set("public", to="zz" * 32),
    "sealed missing": _without("sealed"),
    "sealed null": _set("sealed", to=None),
    "sealed empty": _set("sealed", to=""),
    "sealed shorter than a nonce": _set("sealed", to="0011"),
    "nonce changed": _flip("sealed", at=0),
    "ciphertext changed": _flip("sealed", at=12),
    "tag changed": _flip("sealed", at=-1),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_field_is_a_clear_refusal(folder: Path, damage: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads(key_file(folder).read_bytes())
    damage(record)
    key_file(folder).write_text(json.dumps(record))
    with pytest.raises(CustodyError, match=r"damaged|does not open") as refused:
        custody(folder).sign_many(NAME, [b"x"])
    assert refused.value.hint


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"7", b"{}", b"{", b"\xff\xfe", b"[" * 100_000],
    ids=["empty", "null", "list", "number", "no field", "half", "not text", "deep"],
)
def test_a_file_that_is_no_key_file_is_a_clear_refusal(folder: Path, content: bytes) -> None:
    key_file(folder).write_bytes(content)
    with pytest.raises(CustodyError, match="damaged"):
        custody(folder).open(NAME)


def test_a_key_file_under_another_name_does_not_open(folder: Path) -> None:
    key_file(folder).rename(key_file(folder, "key-00002"))
    with pytest.raises(CustodyError, match="does not open"):
        custody(folder).open("key-00002")


def test_a_public_key_that_is_not_the_seeds_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file well sealed, but by a program with a fault: seed and public key belong to different keys.
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    monkeypatch.setattr(signer.custody.file, "crypto_sign_seed_keypair", lambda seed: (other, seed + other))
    with pytest.raises(CustodyError, match="another key's"):
        custody(folder).open(NAME)


def test_a_folder_in_a_key_files_place_is_a_clear_refusal(tmp_path: Path) -> None:
    key_file(tmp_path).mkdir()
    with pytest.raises(CustodyError, match="cannot be read"):
        custody(tmp_path).open(NAME)


def test_a_folder_that_cannot_be_made_is_a_clear_refusal(tmp_path: Path, cheap_derivation: None) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CustodyError, match="cannot be written"):
        custody(tmp_path / "file" / "keys").create(NAME, Algorithm.ED25519)
