from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_sdk.errors import CheckpointUntrusted, LogError, LogMalformed, ProofWrong, WitnessesMissed
from offline_sdk.transparency import Evidence, Policy
from offline_sdk.transparency.evidence import EXTRA_BYTES_MAX, PROOF_HASHES_MAX
from offline_sdk.transparency.tree import TREE_SIZE_MAX
from tests.offline_sdk.transparency.log_maker import CT_LEAVES, LOG, NOW, WITNESSES, Log

KEYS = tuple(witness.key for witness in WITNESSES)
POLICY = Policy(LOG.key, KEYS, 2)
CT = Log()
CT.append(CT_LEAVES)
EVIDENCE = CT.evidence(5, WITNESSES[:2])

# Regulators keep such files: never change how they are written.
# Computed with hashlib and another Ed25519 than the one under test.
GOLDEN = """\
c2sp.org/tlog-proof@v1
index 5
vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=
yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=
037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc=

log.example.cn/fanxing
8
XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=

— log.example.cn/fanxing 5thAu2DnnuWU51qaSfnUeW5+o63GDjJ352+XLYsohJJcIse3g/sCUelAoJngBGpUoeLnkMhg6+IX1cd229JTUhNiJQo=
— witness.example/w1 1+wyZwAAAABqsTuAmTmUFI3IrdyJMr8Fp6dCkNjzh7VZzfIRAcacEYp0NpPt2ayvu/HnzLt6OspngX+mTi8q/hkKBCf1AJ8+nFRSDA==
— witness.example/w2 xR1GRAAAAABqsTuAhU4miWSzXd45qT4oVXifSgYrsPk0YVJKrrKTeeFYc+eTTlMsnrzWlFE2/wmasPZzwmEV+2nSj198MQjwAGwACw==
"""  # noqa: E501


def test_an_evidence_made_here_has_these_bytes() -> None:
    assert bytes(EVIDENCE).decode() == GOLDEN
    assert Evidence.read(bytes(EVIDENCE)) == EVIDENCE


def test_an_evidence_proves_its_entry_and_no_other() -> None:
    found = EVIDENCE.verify(CT_LEAVES[5], POLICY, NOW)
    assert (found.checkpoint.size, [at for _key, at in found.witnesses]) == (8, [NOW, NOW])
    with pytest.raises(ProofWrong):
        EVIDENCE.verify(CT_LEAVES[4], POLICY)
    with pytest.raises(ProofWrong):
        replace(EVIDENCE, index=4).verify(CT_LEAVES[5], POLICY)
    with pytest.raises(LogMalformed):
        replace(EVIDENCE, index=8).verify(CT_LEAVES[5], POLICY)
    with pytest.raises(WitnessesMissed):
        EVIDENCE.verify(CT_LEAVES[5], replace(POLICY, threshold=3))
    with pytest.raises(WitnessesMissed):
        EVIDENCE.verify(CT_LEAVES[5], POLICY, NOW - 1)
    with pytest.raises(CheckpointUntrusted):
        replace(EVIDENCE, signed=LOG.signed(replace(CT.checkpoint(), origin="other"))).verify(CT_LEAVES[5], POLICY)


@pytest.mark.parametrize(
    "extra", [None, b"", b"a document's name", bytes(EXTRA_BYTES_MAX)], ids=["none", "0", "17", "max"]
)
def test_extra_data_is_kept_and_proves_nothing(extra: bytes | None) -> None:
    evidence = Evidence.read(bytes(replace(EVIDENCE, extra=extra)))
    assert evidence.extra == extra
    evidence.verify(CT_LEAVES[5], POLICY)


def test_extra_data_has_a_limit() -> None:
    with pytest.raises(LogMalformed):
        replace(EVIDENCE, extra=bytes(EXTRA_BYTES_MAX + 1))


@pytest.mark.parametrize(("count", "right"), [(0, True), (PROOF_HASHES_MAX, True), (PROOF_HASHES_MAX + 1, False)])
def test_a_proof_has_at_most_63_hashes(count: int, right: bool) -> None:
    content = bytes(EVIDENCE)
    lines = b"vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=\n" * count
    content = b"c2sp.org/tlog-proof@v1\nindex 5\n" + lines + b"\n" + bytes(EVIDENCE.signed)
    if right:
        assert bytes(Evidence.read(content)) == content
    else:
        with pytest.raises(LogMalformed):
            Evidence.read(content)


@pytest.mark.parametrize(
    ("index", "right"), [(0, True), (TREE_SIZE_MAX - 1, True), (TREE_SIZE_MAX, False), (-1, False)]
)
def test_limits_of_the_index(index: int, right: bool) -> None:
    if right:
        assert Evidence.read(bytes(replace(EVIDENCE, index=index))).index == index
    else:
        with pytest.raises(LogMalformed):
            replace(EVIDENCE, index=index)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("@v1", "@v2"),
        ("index 5\n", ""),
        ("index 5", "index 05"),
        ("index 5", "index  5"),
        ("index 5", "Index 5"),
        ("index 5", "extra \nextra \nindex 5"),
        ("index 5", "extra A\nindex 5"),
        ("index 5", "index 5\nAAAA"),
        ("\n\n", "\n"),
        ("\n", "\r\n"),
    ],
)
def test_what_is_no_evidence_is_refused(old: str, new: str) -> None:
    with pytest.raises(LogMalformed):
        Evidence.read(bytes(EVIDENCE).decode().replace(old, new, 1 if old != "\n" else -1).encode())


@settings(max_examples=40)
@given(st.data())
def test_a_changed_evidence_is_refused_by_name_or_proves_the_same(data: st.DataObject) -> None:
    right = bytes(EVIDENCE)
    at = data.draw(st.integers(0, len(right) - 1))
    changed = right[:at] + data.draw(st.binary(max_size=3)) + right[at + data.draw(st.integers(0, 3)) :]
    try:
        evidence = Evidence.read(changed)
        assert bytes(evidence) == changed
        evidence.verify(CT_LEAVES[5], POLICY)
    except LogError:
        return
    assert (evidence.index, evidence.proof, evidence.signed.checkpoint) == (
        EVIDENCE.index, EVIDENCE.proof, EVIDENCE.signed.checkpoint,
    )  # fmt: skip
