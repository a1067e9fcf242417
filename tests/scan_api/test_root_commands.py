"""Root ceremonies at the terminal: keys on several machines, so many signatures, one root document."""

from collections.abc import Callable
from pathlib import Path

import pytest

import signer.custody.file
from offline_sdk import cose
from offline_sdk.algorithms import SIGNATURE_BYTES
from offline_sdk.root import follow, read_pin
from tests.scan_api.test_commands import ON_SQLITE, Terminal, bare, shop
from tests.trusting import trusted

__all__ = ["bare", "shop"]  # fixtures

Machine = Callable[[str], Terminal]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine of a root key's holder, which has a key and no root."""
    monkeypatch.setattr(signer.custody.file, "_PASSES", 1)
    monkeypatch.setattr(signer.custody.file, "_MEMORY_KIB", 64)

    def make(name: str) -> Terminal:
        made = Terminal(tmp_path / name, f"sqlite:///{tmp_path / name / 'fanxing.db'}")
        made.ask("init --make-passphrase --without-root")
        return made

    return make


def published(terminal: Terminal) -> Path:
    file = terminal.home / "trust.cbor"
    terminal.ask(f"bundle export --out {file}")
    return file


def test_two_of_three_holders_take_the_root_over_and_scanners_follow(shop: Terminal, machine: Machine) -> None:
    pin_before = (shop.home / "root.pin").read_bytes()
    holders = {name: machine(name) for name in ("anna", "bo", "chen")}
    keys = {name: holder.ask(f"root key root-{name}")["key"] for name, holder in holders.items()}
    draft = shop.home / "root-2.cbor"
    roots = " ".join(f"--root-key {key}" for key in keys.values())
    told = shop.ask(f"root draft --out {draft} {roots} --threshold 2")
    assert (told["version"], told["threshold"], told["signed_by"]) == (2, "2 of 3", [])
    assert sorted(told["new"]) == sorted(keys.values())
    assert len(told["gone"]) == 1

    holders["anna"].ask(f"root sign {draft} --key root-anna --yes")
    holders["anna"].ask(f"root sign {draft} --key root-anna --yes")  # her second signature counts for nothing
    assert shop.refusal(f"root install {draft}") == "RootRefused"  # neither enough of the new nor one of the old
    shop.ask(f"root sign {draft} --key root-1 --yes")
    assert shop.refusal(f"root install {draft}") == "RootRefused"  # one of the new is not two
    signed = holders["chen"].ask(f"root sign {draft} --key root-chen --yes")
    assert signed["signatures"] == "2 of the 2 needed of its own"
    assert shop.ask(f"root install {draft}")["version"] == 2

    assert (shop.home / "root.pin").read_bytes() == pin_before
    content = published(shop).read_bytes()
    root = follow(cose.read(content), read_pin(pin_before))
    assert (root.version, root.threshold, len(root.keys)) == (2, 2, 3)
    assert trusted(content, shop.home / "root.pin").seq == 2
    assert shop.ask("root show")["version"] == 2
    assert shop.refusal(f"root install {draft}") == "RootRefused"  # it is installed


def test_a_new_publisher_signs_bundles_once_the_root_names_it(shop: Terminal) -> None:
    key = shop.ask("root key publisher-2")["key"]
    draft = shop.home / "root-2.cbor"
    shop.ask(f"root draft --out {draft} --publisher {key}")
    shop.ask(f"root sign {draft} --key root-1 --yes")
    shop.ask(f"root install {draft}")
    bundle = cose.read(published(shop).read_bytes())[-1]
    held = {row["name"]: row for row in shop.ask("root keys")}
    assert bundle.signatures[0][0].endswith(bytes.fromhex(held["publisher-2"]["kid"]))
    assert [row["publisher"] for row in shop.ask("root keys")] == [False, False, True]


def test_a_p256_root_and_publisher_work_as_well(shop: Terminal) -> None:
    root, publisher = (shop.ask(f"root key {name} --algorithm P-256")["key"] for name in ("root-2", "publisher-2"))
    draft = shop.home / "root-2.cbor"
    shop.ask(f"root draft --out {draft} --root-key {root} --publisher {publisher}")
    for name in ("root-1", "root-2"):
        shop.ask(f"root sign {draft} --key {name} --yes")
    shop.ask(f"root install {draft}")
    assert trusted(published(shop).read_bytes(), shop.home / "root.pin").seq == 2


def test_a_root_made_by_holders_is_the_first_of_an_installation(bare: Terminal, machine: Machine) -> None:
    bare.ask("init --make-passphrase --without-root")
    holder = machine("anna")
    root, publisher = holder.ask("root key root-anna")["key"], bare.ask("root key publisher-1")["key"]
    draft = bare.home / "root-1.cbor"
    bare.ask(f"root draft --out {draft} --root-key {root} --publisher {publisher}")
    assert bare.refusal(f"root install {draft}") == "RootRefused"
    holder.ask(f"root sign {draft} --key root-anna --yes")
    installed = bare.ask(f"root install {draft}")
    assert (bare.home / "root.pin").read_text() == installed["pin"] + "\n"
    assert trusted(published(bare).read_bytes(), bare.home / "root.pin").seq == installed["bundle_seq"] == 1


def test_a_first_root_under_which_nothing_can_be_published_bars_no_other(bare: Terminal, machine: Machine) -> None:
    bare.ask("init --make-passphrase --without-root")
    holder = machine("anna")
    root, elsewhere = (holder.ask(f"root key {name}")["key"] for name in ("root-anna", "publisher-anna"))
    here = bare.ask("root key publisher-1")["key"]
    for publisher in (elsewhere, here):
        draft = bare.home / f"root-of-{publisher[-8:]}.cbor"
        bare.ask(f"root draft --out {draft} --root-key {root} --publisher {publisher}")
        holder.ask(f"root sign {draft} --key root-anna --yes")
        if publisher == elsewhere:
            assert bare.refusal(f"root install {draft}") == "PublisherMissing"
            assert not (bare.home / "root.pin").exists()
    assert bare.ask(f"root install {draft}")["bundle_seq"] == 1


@ON_SQLITE
def test_a_draft_is_not_written_over_another_that_may_be_signed(shop: Terminal) -> None:
    draft = shop.home / "root-2.cbor"
    shop.ask(f"root draft --out {draft}")
    before = draft.read_bytes()
    assert shop.refusal(f"root draft --out {draft}") == "DraftExists"
    assert draft.read_bytes() == before


@ON_SQLITE
def test_without_yes_nothing_is_signed(shop: Terminal) -> None:
    draft = shop.home / "root-2.cbor"
    shop.ask(f"root draft --out {draft}")
    before = draft.read_bytes()
    assert shop.ask(f"root sign {draft} --key root-1")["dry_run"] is True
    assert draft.read_bytes() == before
    shop.ask(f"root sign {draft} --key root-1 --yes")
    assert len(draft.read_bytes()) > len(before) + SIGNATURE_BYTES


@ON_SQLITE
def test_what_is_no_root_document_is_refused_before_it_is_signed(shop: Terminal) -> None:
    bundle = published(shop)
    noise = shop.home / "noise"
    noise.write_bytes(b"\xd8\x62" + bytes(100))
    for file in (bundle, noise):
        assert shop.refusal(f"root sign {file} --key root-1 --yes") == "RootRefused"
        assert shop.refusal(f"root install {file}") == "RootRefused"
        assert shop.refusal(f"root show {file}") == "RootRefused"


@ON_SQLITE
@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("--threshold 2", "RootDraftInvalid"),
        ("--threshold 0", "RootDraftInvalid"),
        ("--days 0", "RootDraftInvalid"),
        ("--days 3661", "RootDraftInvalid"),
        ("--root-key Ed25519:00", "SignerInvalid"),
        ("--root-key Ed25519:xx", "SignerInvalid"),
        ("--publisher RSA:00", "SignerInvalid"),
        (f"--publisher Ed25519:{'00' * 32}", "SignerInvalid"),
    ],
)
def test_a_draft_that_no_scanner_would_take_is_not_written(shop: Terminal, options: str, code: str) -> None:
    draft = shop.home / "root-2.cbor"
    assert shop.refusal(f"root draft --out {draft} {options}") == code
    assert not draft.exists()


@ON_SQLITE
def test_a_name_that_is_taken_makes_no_second_key(shop: Terminal) -> None:
    assert shop.refusal("root key root-1") == "DocumentKeyExists"
