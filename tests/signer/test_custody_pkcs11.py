"""Token custody: keys that never come out, sessions that come back, and a PIN that is tried once."""

import multiprocessing
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass

from offline_sdk.algorithms import Algorithm, signature_is_right
from signer.custody import CustodyError, PrivateKeyMissing
from signer.custody.pkcs11 import TokenCustody
from signer.service import TokenCustodyAccess
from tests.signer.softhsm import PIN, SoftToken, module

NAME = "key-00001"
ALGORITHMS = pytest.mark.parametrize("algorithm", list(Algorithm), ids=lambda algorithm: algorithm.label)
_ED25519 = bytes.fromhex("06032b6570")


def signs(custody: TokenCustody, algorithm: Algorithm, public: bytes) -> bool:
    return signature_is_right(algorithm, public, b"x", custody.sign_many(NAME, [b"x"])[0])


@ALGORITHMS
def test_a_private_key_never_leaves_the_token(token: SoftToken, algorithm: Algorithm) -> None:
    custody = token.custody()
    custody.create(NAME, algorithm)
    private = token.session().get_key(ObjectClass.PRIVATE_KEY, label=NAME)
    told = [private[one] for one in (Attribute.TOKEN, Attribute.PRIVATE, Attribute.SENSITIVE, Attribute.EXTRACTABLE)]
    assert told == [True, True, True, False]
    assert private[Attribute.ALWAYS_SENSITIVE]
    assert private[Attribute.NEVER_EXTRACTABLE]
    assert private[Attribute.LOCAL]
    with pytest.raises(pkcs11.AttributeSensitive):
        private[Attribute.VALUE]


@ALGORITHMS
def test_another_program_signs_with_the_key_by_its_name(token: SoftToken, tmp_path: Path, algorithm: Algorithm) -> None:
    public = token.custody().create(NAME, algorithm)
    tool = shutil.which("pkcs11-tool") or pytest.fail("pkcs11-tool is missing: apt-get install -y opensc")
    message = tmp_path / "message"
    message.write_bytes(b"x")
    listed = subprocess.run(
        [tool, "--module", module(), "--token-label", token.label, "--login", "--pin", PIN, "--list-objects"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert listed.count(NAME) >= 2, "a private and a public half"
    mechanism = "EDDSA" if algorithm is Algorithm.ED25519 else "ECDSA-SHA256"
    if mechanism == "EDDSA":
        command = ["--sign", "--mechanism", mechanism, "--label", NAME, "-i", message, "-o", tmp_path / "signature"]
        subprocess.run(
            [tool, "--module", module(), "--token-label", token.label, "--login", "--pin", PIN, *command],
            check=True,
            capture_output=True,
        )
        assert signature_is_right(algorithm, public, b"x", (tmp_path / "signature").read_bytes())


def test_a_key_that_could_be_taken_out_is_refused(token: SoftToken) -> None:
    custody = token.custody()
    custody.create("another", Algorithm.ED25519)  # logs this process in
    session = token.session()
    curve = session.create_domain_parameters(KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: _ED25519}, local=True)
    curve.generate_keypair(
        mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
        label=NAME,
        store=True,
        capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
        private_template={Attribute.EXTRACTABLE: True},
    )
    with pytest.raises(CustodyError, match="can be taken out of the token"):
        custody.open(NAME)
    with pytest.raises(CustodyError, match="can be taken out of the token"):
        custody.sign_many(NAME, [b"x"])


def test_a_key_of_another_curve_is_refused(token: SoftToken) -> None:
    custody = token.custody()
    custody.create("another", Algorithm.ED25519)
    session = token.session()
    p384 = bytes.fromhex("06052b81040022")
    session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: p384}, local=True).generate_keypair(
        label=NAME, store=True
    )
    with pytest.raises(CustodyError, match="neither Ed25519 nor P-256"):
        custody.open(NAME)


def test_two_keys_of_one_name_are_refused(token: SoftToken) -> None:
    custody = token.custody()
    custody.create(NAME, Algorithm.ED25519)
    custody.create("key-00002", Algorithm.ED25519)
    for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
        token.session().get_key(kind, label="key-00002")[Attribute.LABEL] = NAME
    with pytest.raises(CustodyError, match="several keys"):
        token.custody().open(NAME)


def test_a_public_half_of_another_key_is_found_out(token: SoftToken) -> None:
    custody = token.custody()
    custody.create(NAME, Algorithm.ED25519)
    custody.create("key-00002", Algorithm.ED25519)
    session = token.session()
    session.get_key(ObjectClass.PUBLIC_KEY, label=NAME).destroy()
    session.get_key(ObjectClass.PUBLIC_KEY, label="key-00002")[Attribute.LABEL] = NAME
    with pytest.raises(CustodyError, match="does not sign as its public key says"):
        token.custody().open(NAME)


@ALGORITHMS
def test_signing_goes_on_when_the_token_was_lost_meanwhile(token: SoftToken, algorithm: Algorithm) -> None:
    custody = token.custody()
    public = custody.create(NAME, algorithm)
    token.restart()
    assert signs(custody, algorithm, public)
    pkcs11.lib(str(module())).finalize()
    assert signs(custody, algorithm, public)


def test_signing_goes_on_when_somebody_logged_this_process_out(token: SoftToken) -> None:
    custody = token.custody()
    public = custody.create(NAME, Algorithm.ED25519)
    other = pkcs11.lib(str(module())).get_token(token_label=token.label)
    token.restart()
    other.open(user_pin=PIN).close()  # logs out whoever of this process is logged in
    assert signs(custody, Algorithm.ED25519, public)


def test_a_token_that_is_gone_is_a_clear_refusal_and_back_again_signs(token: SoftToken) -> None:
    custody = token.custody()
    public = custody.create(NAME, Algorithm.ED25519)
    away = token.tokens.rename(token.folder / "away")
    token.tokens.mkdir()
    with pytest.raises(CustodyError, match="refused: NoSuchToken") as refused:
        custody.sign_many(NAME, [b"x"])
    assert "FANXING_PKCS11_TOKEN" in refused.value.hint
    token.tokens.rmdir()
    away.rename(token.tokens)
    assert signs(custody, Algorithm.ED25519, public)


def test_a_key_that_was_deleted_from_the_token_is_missing(token: SoftToken) -> None:
    custody = token.custody()
    custody.create(NAME, Algorithm.ED25519)
    for key in list(token.session().get_objects({Attribute.LABEL: NAME})):
        key.destroy()
    token.restart()
    with pytest.raises(PrivateKeyMissing):
        custody.sign_many(NAME, [b"x"])


def test_a_wrong_pin_is_tried_once_and_never_told(token: SoftToken) -> None:
    asked: list[str] = []

    def pin() -> str:
        asked.append("")
        return "hunter2-hunter2"

    custody = TokenCustody(module(), token.label, pin)
    for _ in range(3):
        with pytest.raises(CustodyError, match="refused: PinIncorrect") as refused:
            custody.open(NAME)
        assert "hunter2" not in f"{refused.value} {refused.value.hint} {refused.value.__dict__}"
        assert "FANXING_PKCS11_PIN_FILE" in refused.value.hint
    assert len(asked) == 1, "a token locks after a few wrong PINs"
    token.custody().create(NAME, Algorithm.ED25519)


def test_a_module_that_is_not_there_is_a_clear_refusal(tmp_path: Path) -> None:
    with pytest.raises(CustodyError, match="refused: PKCS11Error") as refused:
        TokenCustody(tmp_path / "absent.so", "any", lambda: PIN).open(NAME)
    assert "FANXING_PKCS11_MODULE" in refused.value.hint


def test_the_pin_shows_in_nothing_that_a_log_could_hold(token: SoftToken) -> None:
    assert PIN not in repr(token.access)
    assert PIN not in repr(token.access.open().__dict__)


def _sign_elsewhere(access: bytes, public: bytes) -> None:
    service = pickle.loads(access).open()  # noqa: S301 - from this test
    right = signature_is_right(Algorithm.ED25519, public, b"x", service.sign_named(NAME, b"x"))
    os._exit(0 if right else 1)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_process_that_is_handed_the_access_signs(token: SoftToken, start: str) -> None:
    access: TokenCustodyAccess = token.access
    public = access.open().create_named(NAME).public  # this process has a session, which a fork must not use
    child = multiprocessing.get_context(start).Process(target=_sign_elsewhere, args=(pickle.dumps(access), public))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert signs(token.custody(), Algorithm.ED25519, public), "and this one still does"


def test_two_custodies_of_one_process_share_the_token(token: SoftToken) -> None:
    # A command signs a manifest while its engine, in another thread, signs codes.
    first, second = token.custody(), token.custody()
    public = first.create(NAME, Algorithm.ED25519)
    assert signs(second, Algorithm.ED25519, public)
    assert signs(first, Algorithm.ED25519, public)
