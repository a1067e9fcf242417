from collections.abc import Callable, Sequence
from dataclasses import replace

import cbor2
import pytest

from offline_sdk import (
    Bundle,
    DocumentType,
    ForeignRoot,
    Root,
    Signer,
    cose,
    delta,
    item_set,
    p256,
    root,
    strict,
    trust_store,
)
from offline_sdk.bundle import signed_payload
from offline_sdk.trust_store import Memory
from tests.fuzz import engine
from tests.fuzz.__main__ import TARGETS, target_named
from tests.fuzz.target import Finding, Target, must

RUNS = {
    "code_text": 10_000,
    "item_set": 2_000,
    "bundle_parser": 10_000,
    "delta_parser": 10_000,
    "root_parser": 10_000,
    "bundle": 1_000,
    "delta": 700,
    "root": 600,
}


@pytest.mark.parametrize("name", list(TARGETS))
def test_fuzzing_finds_nothing(name: str) -> None:
    outcome = engine.run(target_named(name), RUNS[name], seed=1)
    assert [what for what, _data in outcome.findings] == []
    assert outcome.runs == RUNS[name]


def test_a_run_is_the_same_for_the_same_seed() -> None:
    first, second = (engine.run(target_named("delta"), 500, seed=7) for _ in range(2))
    assert first.outcomes == second.outcomes


def test_whatever_gets_out_is_a_finding_with_its_input() -> None:
    def check(data: bytes) -> str:
        must(data != b"\x02", "two is not taken")
        if data == b"\x03":
            raise ZeroDivisionError("three")
        return "fine"

    target = Target("invented", (b"\x01", b"\x02", b"\x03"), lambda data, _dice: data, check)
    outcome = engine.run(target, 3)
    assert outcome.findings == [("Finding: two is not taken", b"\x02"), ("ZeroDivisionError: three", b"\x03")]
    assert issubclass(Finding, AssertionError)


def test_an_input_that_takes_too_long_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_data: bytes) -> str:
        while True:
            pass

    monkeypatch.setattr(engine, "INPUT_S_MAX", 0.05)
    outcome = engine.run(Target("invented", (b"\x01",), lambda data, _dice: data, check), 1)
    assert len(outcome.findings) == 1
    assert outcome.findings[0][0].startswith("Finding: an input takes more than")


PLANTED: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "unsigned": ("bundle", lambda patch: patch.setattr(cose, "signature_is_right", lambda *_: True)),
    "result of a delta unsigned": ("delta", lambda patch: patch.setattr(delta, "signed_payload", believed)),
    "decoder's errors uncaught": ("bundle", lambda patch: patch.setattr(strict, "cbor", cbor2.loads)),
    "s may be high": ("code_text", lambda patch: patch.setattr(p256, "S_MAX", p256.P256_ORDER)),
    "threshold of one": ("root", lambda patch: patch.setattr(root, "_check_threshold", threshold_of_one)),
    "seq forgotten": ("root", lambda patch: patch.setattr(trust_store, "_remember_bundle", seq_forgotten)),
    "items may fall": ("item_set", lambda patch: patch.setattr(item_set, "_same_bucket", lambda _upper: 0)),
}


@pytest.mark.parametrize("fault", list(PLANTED))
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, plant = PLANTED[fault]
    target = target_named(name)
    plant(monkeypatch)
    assert engine.run(target, 4_000, seed=1, findings_max=1).findings


def believed(document: bytes, type_: DocumentType, publishers: Sequence[Signer]) -> bytes:
    """What a document says, with the signature of a bundle not looked at."""
    if type_ is DocumentType.BUNDLE:
        return cose.read(document)[0].payload
    return signed_payload(document, type_, publishers)


def threshold_of_one(right: int, _threshold: int, whose: str) -> None:
    if not right:
        raise ForeignRoot(f"no right signature by {whose}")


def seq_forgotten(memory: Memory, bundle: Bundle, _root: Root) -> Memory:
    return replace(memory, seq=bundle.seq, bundle=bundle.fingerprint.hex())
