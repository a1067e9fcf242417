"""How fast codes are checked offline: in a process of one's own, and by `fanxing-verify`."""

import subprocess
import sys
import time
from pathlib import Path

from nacl.bindings import crypto_sign_open
from nacl.signing import SigningKey

from offline_sdk import Algorithm, Bundle, BundleKey, DocumentType, Signer, Verifier, seal, to_be_signed
from offline_sdk.bundle import format_root
from offline_sdk.code_text import parse
from tests.bench.factory import KID, Factory
from tests.bench.figures import Figure, figure, in_turns, rate_of

ROUNDS = 5
CHECKS = 5_000
PROCESS_ROUNDS = 3
PROCESS_TEXTS = 20_000
LIFETIME_S = 86_400


def checks(folder: Path) -> list[Figure]:
    """Whole verdicts, beside libsodium opening the same signatures."""
    factory = Factory(folder / "keys")
    now = int(time.time())
    key = BundleKey(KID, factory.public, "Bench", ("9506000",))
    bundle = Bundle("bench.example", 1, now - 1, now + LIFETIME_S, (key,))
    verifier = Verifier(bundle)
    texts = factory.texts(PROCESS_TEXTS)
    signed = [code.signature + code.message() for code in map(parse, texts[:CHECKS])]

    def check() -> None:
        assert all(verifier.check(text).is_genuine for text in texts[:CHECKS])

    def bare() -> None:
        for message in signed:
            crypto_sign_open(message, factory.public)

    def process() -> None:
        done = subprocess.run(command, input="\n".join(texts), capture_output=True, text=True, check=True)
        assert done.stdout.count('"genuine"') == PROCESS_TEXTS

    command = _command(folder, bundle)
    ours, yardstick = in_turns(ROUNDS, lambda: rate_of(CHECKS, check), lambda: rate_of(CHECKS, bare))
    whole, beside = in_turns(PROCESS_ROUNDS, lambda: rate_of(PROCESS_TEXTS, process), lambda: rate_of(CHECKS, bare))
    bare_name = "bare crypto_sign_open"
    return [
        figure("checks, Verifier.check", ours, "checks/s", bare_name, yardstick),
        figure(f"checks, fanxing-verify of {PROCESS_TEXTS:,}, with start", whole, "checks/s", bare_name, beside),
    ]


def _command(folder: Path, bundle: Bundle) -> list[str]:
    root = SigningKey.generate()
    public = bytes(root.verify_key)
    publisher = Signer(Algorithm.ED25519, public)
    payload = bundle.payload()
    signature = root.sign(to_be_signed(DocumentType.BUNDLE, payload, publisher)).signature
    (folder / "bundle.cbor").write_bytes(seal(DocumentType.BUNDLE, payload, {publisher: signature}))
    (folder / "root.pub").write_bytes(format_root(public))
    program = str(Path(sys.executable).with_name("fanxing-verify"))
    return [program, "--json", "--bundle", str(folder / "bundle.cbor"), "--root", str(folder / "root.pub")]
