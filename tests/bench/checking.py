"""How fast codes are checked offline: in a process of one's own, and by `fanxing-verify`."""

import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from nacl.bindings import crypto_sign_open
from nacl.signing import SigningKey, VerifyKey

from offline_sdk import (
    Algorithm,
    Bundle,
    BundleKey,
    DocumentType,
    Root,
    Signer,
    Verifier,
    format_pin,
    seal,
    to_be_signed,
)
from offline_sdk.code_text import parse
from tests.bench.factory import KID, Factory
from tests.bench.figures import Figure, figure, in_turns, rate_of

ROUNDS = 15
CHECKS = 2_000
PROCESS_ROUNDS = 3
PROCESS_TEXTS = 100_000
LIFETIME_S = 86_400


def checks(folder: Path) -> list[Figure]:
    """Whole verdicts, beside PyNaCl and bare libsodium verifying the same signatures."""
    factory = Factory(folder / "keys")
    now = int(time.time())
    key = BundleKey(KID, factory.public, "Bench", ("9506000",))
    bundle = Bundle("bench.example", 1, now - 1, now + LIFETIME_S, (key,))
    verifier, public = Verifier(bundle), VerifyKey(factory.public)
    texts = factory.texts(PROCESS_TEXTS)
    codes = [(code.signature, code.message()) for code in map(parse, texts[:CHECKS])]
    signed = [signature + message for signature, message in codes]

    def check() -> None:
        assert all(verifier.check(text).is_genuine for text in texts[:CHECKS])

    def pynacl() -> None:
        for signature, message in codes:
            public.verify(message, signature)

    def bare() -> None:
        for message in signed:
            crypto_sign_open(message, factory.public)

    def process() -> float:
        before = _children_s()
        with (folder / "texts").open("rb") as file:
            done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=True)
        assert done.stdout.count('"genuine"') == PROCESS_TEXTS
        return PROCESS_TEXTS / (_children_s() - before)

    def bare_by_cpu() -> float:
        started = time.process_time()
        bare()
        return CHECKS / (time.process_time() - started)

    command = _command(folder, bundle)
    (folder / "texts").write_text("\n".join(texts))
    ours, official, yardstick = in_turns(ROUNDS, *(partial(rate_of, CHECKS, work) for work in (check, pynacl, bare)))
    # Of seconds that others may spend on the same cores it is the processor's that count.
    before, whole, after = in_turns(PROCESS_ROUNDS, bare_by_cpu, process, bare_by_cpu)
    beside = [(one + other) / 2 for one, other in zip(before, after, strict=True)]
    bare_name = "bare crypto_sign_open"
    return [
        figure("checks, Verifier.check", ours, "checks/s", "PyNaCl, VerifyKey.verify", official),
        figure("checks, Verifier.check", ours, "checks/s", bare_name, yardstick),
        figure(f"checks, fanxing-verify of {PROCESS_TEXTS:,}", whole, "checks/CPU s", bare_name, beside),
    ]


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _command(folder: Path, bundle: Bundle) -> list[str]:
    private = SigningKey.generate()
    signer = Signer(Algorithm.ED25519, bytes(private.verify_key))
    root = Root(bundle.domain, 1, bundle.issued, bundle.expires, (signer,), 1, (signer,))

    def sealed(type_: DocumentType, payload: bytes) -> bytes:
        return seal(type_, payload, {signer: private.sign(to_be_signed(type_, payload, signer)).signature})

    documents = sealed(DocumentType.ROOT, root.payload()), sealed(DocumentType.BUNDLE, bundle.payload())
    (folder / "trust.cbor").write_bytes(b"".join(documents))
    (folder / "root.pin").write_bytes(format_pin(root.fingerprint))
    program = str(Path(sys.executable).with_name("fanxing-verify"))
    return [program, "--json", "--trust", str(folder / "trust.cbor"), "--root", str(folder / "root.pin")]
