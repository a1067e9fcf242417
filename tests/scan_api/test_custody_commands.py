"""Commands of an installation whose keys lie in a token, from setting up to an order that is verified."""

import os
from pathlib import Path

import pytest

from tests.scan_api.test_commands import GTIN, PREFIX, Terminal
from tests.signer.softhsm import PIN, SoftToken, make_token, module


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftToken:
    return make_token(tmp_path / "hsm", monkeypatch)


@pytest.fixture
def shop(tmp_path: Path, token: SoftToken) -> Terminal:
    pin = tmp_path / "user.pin"
    pin.write_text(PIN + "\n")
    pin.chmod(0o600)
    settings = {
        "FANXING_CUSTODY": "pkcs11",
        "FANXING_PKCS11_MODULE": str(module()),
        "FANXING_PKCS11_TOKEN": token.label,
        "FANXING_PKCS11_PIN_FILE": str(pin),
    }
    return Terminal(tmp_path / "home", f"sqlite:///{tmp_path / 'shop.db'}", settings)


def test_an_installation_lives_on_a_token(shop: Terminal, tmp_path: Path) -> None:
    shop.ask("init")
    assert not (shop.home / "keys").exists()
    assert not (shop.home / "signer.passphrase").exists()
    shop.ask(f"issuer create --gtin-prefix {PREFIX} --name 'Example Ice'")
    shop.ask("brand create --slug ice --group group --name-zh 例冰 --name-en Ice --issuer 'Example Ice'")
    shop.ask(f"product create --brand ice --gtin {GTIN} --name-zh 绿豆冰 --name-en 'Mung Bean Ice'")
    made = shop.ask("key create --issuer 'Example Ice' --algorithm p256")
    assert (made["kid"], made["algorithm"]) == (2, "P-256")
    shop.ask("issuer create --gtin-prefix 6901234 --name 'Another' --algorithm P-256")
    assert shop.ask("key list")[2]["algorithm"] == "P-256"
    order = f"order create --gtin {GTIN} --quantity 20 --face outer --export csv --workers 1"
    shop.ask(f"{order} --out {tmp_path / 'p256'}")
    assert shop.ask(f"order verify {tmp_path / 'p256'}")["kid"] == 2
    assert shop.ask("key rotate --issuer 'Example Ice'")["kid"] == 4
    assert shop.ask("key revoke 1 --yes")["state"] == "revoked"
    assert [(key["state"], key["algorithm"]) for key in shop.ask("key list")] == [
        ("revoked", "Ed25519"),
        ("retired", "P-256"),
        ("active", "P-256"),
        ("active", "P-256"),
    ]
    for name in os.listdir(shop.home):
        path = shop.home / name
        assert not path.is_file() or PIN.encode() not in path.read_bytes()


def test_a_pin_that_cannot_be_had_is_told(shop: Terminal, tmp_path: Path) -> None:
    shop.settings["FANXING_PKCS11_PIN_FILE"] = str(tmp_path / "absent.pin")
    assert shop.refusal("init") == "ConfigurationError"
    del shop.settings["FANXING_PKCS11_PIN_FILE"]
    assert shop.refusal("init") == "ConfigurationError"
    (tmp_path / "wrong.pin").write_text("hunter2-hunter2")
    shop.settings["FANXING_PKCS11_PIN_FILE"] = str(tmp_path / "wrong.pin")
    assert shop.refusal("init") == "CustodyError"
    assert "hunter2" not in shop.run("init").output


@pytest.mark.parametrize("algorithm", ["rsa", "-9", ""])
def test_an_unknown_algorithm_makes_no_key(shop: Terminal, algorithm: str) -> None:
    assert shop.refusal(f"key create --issuer 'Example Ice' --algorithm '{algorithm}'") == "SignerInvalid"


def test_an_agent_with_a_wrong_pin_does_not_begin(shop: Terminal, tmp_path: Path) -> None:
    shop.ask("init")
    (tmp_path / "wrong.pin").write_text("hunter2-hunter2")
    (tmp_path / "wrong.pin").chmod(0o600)
    shop.settings["FANXING_PKCS11_PIN_FILE"] = str(tmp_path / "wrong.pin")
    assert shop.refusal(f"signer agent --socket {tmp_path / 'agent.sock'}") == "CustodyError"
    assert not (tmp_path / "agent.sock").exists()
