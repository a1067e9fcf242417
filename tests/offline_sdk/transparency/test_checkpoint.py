from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_sdk.errors import CheckpointUntrusted, LogMalformed, WitnessesMissed
from offline_sdk.transparency import Checkpoint, NoteSignature, Policy, SignedCheckpoint, VerifierKey
from offline_sdk.transparency.checkpoint import EXTENSIONS_MAX, LINE_CHARS_MAX, WITNESSES_MAX
from offline_sdk.transparency.tree import EMPTY_ROOT, TREE_SIZE_MAX
from tests.offline_sdk.transparency.log_maker import CT_LEAVES, LOG, NOW, ORIGIN, WITNESSES, Log, Signer

# The example of C2SP tlog-cosignature; its keys are not published.
EXAMPLE = """\
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
""".encode()  # noqa: E501

# A checkpoint of a public log of certificates with the cosignatures of public witnesses, one of another type of key.
ARCHE = """\
arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==
— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==
""".encode()  # noqa: E501
ARCHE_KEY = VerifierKey.read(
    "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
)
ARCHE_WITNESSES = tuple(
    map(
        VerifierKey.read,
        [
            "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
            "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
            "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
            "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
        ],
    )
)
KEYS = tuple(witness.key for witness in WITNESSES)
LOG_OF_5 = Log.of(5)


def test_the_example_of_the_specification_is_read() -> None:
    signed = SignedCheckpoint.read(EXAMPLE)
    assert bytes(signed) == EXAMPLE
    assert (signed.checkpoint.origin, signed.checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    # The time of the cosignature is the one that tlog-cosignature spells out.
    assert int.from_bytes(signed.signatures[1].content[:8], "big") == 1_679_315_147


def test_a_public_logs_checkpoint_with_four_witnesses_is_trusted() -> None:
    found = Policy(ARCHE_KEY, ARCHE_WITNESSES, 4).check(SignedCheckpoint.read(ARCHE))
    assert found.checkpoint.size == 1_432_088_532
    assert found.witnesses == tuple((key, 1_779_573_024) for key in ARCHE_WITNESSES)


@pytest.mark.parametrize("key", [ARCHE_KEY, *ARCHE_WITNESSES], ids=lambda key: key.name)
def test_a_public_logs_checkpoint_is_not_trusted_with_another_size(key: VerifierKey) -> None:
    signed = SignedCheckpoint.read(ARCHE.replace(b"1432088532", b"1432088533"))
    with pytest.raises(CheckpointUntrusted):
        signed.note.verified([key])


def test_a_checkpoint_made_here_has_these_bytes() -> None:
    log = Log()
    log.append(CT_LEAVES)
    # Logs and witnesses sign these bytes: never change them.
    assert bytes(log.signed(witnesses=WITNESSES[:1])).decode() == GOLDEN


# Computed with hashlib and another Ed25519 than the one under test.
GOLDEN = """\
log.example.cn/fanxing
8
XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=

— log.example.cn/fanxing 5thAu2DnnuWU51qaSfnUeW5+o63GDjJ352+XLYsohJJcIse3g/sCUelAoJngBGpUoeLnkMhg6+IX1cd229JTUhNiJQo=
— witness.example/w1 1+wyZwAAAABqsTuAmTmUFI3IrdyJMr8Fp6dCkNjzh7VZzfIRAcacEYp0NpPt2ayvu/HnzLt6OspngX+mTi8q/hkKBCf1AJ8+nFRSDA==
"""  # noqa: E501


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "origin\n",
        "origin\n1\n",
        "origin\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=",
        "\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "origin\n01\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "origin\n-1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        f"origin\n{TREE_SIZE_MAX + 1}\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "origin\n0\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "origin\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2J=\n",
        "origin\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2\n",
        "origin\n1\nAAAA\n",
        "origin\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n",
        "origin\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\nmore\n",
    ],
    ids=repr,
)
def test_a_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(LogMalformed):
        Checkpoint.read(text)


@pytest.mark.parametrize(("size", "right"), [(0, True), (TREE_SIZE_MAX, True), (TREE_SIZE_MAX + 1, False), (-1, False)])
def test_limits_of_the_tree_size(size: int, right: bool) -> None:
    if right:
        checkpoint = Checkpoint("origin", size, EMPTY_ROOT)
        assert Checkpoint.read(checkpoint.text) == checkpoint
    else:
        with pytest.raises(LogMalformed):
            Checkpoint("origin", size, EMPTY_ROOT)


@pytest.mark.parametrize(
    ("chars", "right"), [(0, False), (1, True), (LINE_CHARS_MAX, True), (LINE_CHARS_MAX + 1, False)]
)
def test_limits_of_a_line(chars: int, right: bool) -> None:
    if right:
        checkpoint = Checkpoint("é" * chars, 1, bytes(32), ("x" * chars,))
        assert Checkpoint.read(checkpoint.text) == checkpoint
    else:
        with pytest.raises(LogMalformed):
            Checkpoint("é" * chars, 1, bytes(32))
        with pytest.raises(LogMalformed):
            Checkpoint("origin", 1, bytes(32), ("x" * chars,))


@pytest.mark.parametrize("count", [EXTENSIONS_MAX, EXTENSIONS_MAX + 1])
def test_limits_of_extension_lines(count: int) -> None:
    if count <= EXTENSIONS_MAX:
        checkpoint = Checkpoint("origin", 1, bytes(32), ("more",) * count)
        assert Checkpoint.read(checkpoint.text) == checkpoint
    else:
        with pytest.raises(LogMalformed):
            Checkpoint("origin", 1, bytes(32), ("more",) * count)


@settings(max_examples=40)
@given(st.text(max_size=60), st.lists(st.text(max_size=5), max_size=3))
def test_whatever_can_be_made_can_be_read(origin: str, extensions: list[str]) -> None:
    try:
        checkpoint = Checkpoint(origin, 1, bytes(32), tuple(extensions))
    except LogMalformed:
        return
    assert SignedCheckpoint.read(bytes(LOG.signed(checkpoint))) == LOG.signed(checkpoint)


@settings(max_examples=40)
@given(st.data())
def test_a_changed_checkpoint_is_refused_or_the_same(data: st.DataObject) -> None:
    right = bytes(LOG_OF_5.signed(witnesses=WITNESSES))
    at = data.draw(st.integers(0, len(right) - 1))
    changed = right[:at] + data.draw(st.binary(max_size=3)) + right[at + data.draw(st.integers(0, 3)) :]
    policy = Policy(LOG.key, KEYS, 3)
    try:
        assert policy.check(SignedCheckpoint.read(changed)).checkpoint == LOG_OF_5.checkpoint()
    except (LogMalformed, CheckpointUntrusted, WitnessesMissed):
        assert changed != right


@pytest.mark.parametrize(("cosigned", "threshold"), [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (3, 2), (2, 3), (3, 3)])
def test_as_many_witnesses_as_the_policy_asks_for(cosigned: int, threshold: int) -> None:
    signed = LOG_OF_5.signed(witnesses=WITNESSES[:cosigned])
    policy = Policy(LOG.key, KEYS, threshold)
    if cosigned >= threshold:
        assert [key for key, _at in policy.check(signed).witnesses] == list(KEYS[:cosigned])
    else:
        with pytest.raises(WitnessesMissed):
            policy.check(signed)


def test_one_witness_counts_once() -> None:
    one = WITNESSES[0]
    checkpoint = LOG_OF_5.checkpoint()
    twice = [signature for at in (NOW, NOW + 1) for signature in one.signed(checkpoint, at).signatures]
    signed = SignedCheckpoint(checkpoint, (*LOG_OF_5.signed().signatures, *twice))
    assert Policy(LOG.key, KEYS, 1).check(signed).witnesses == ((one.key, NOW + 1),)
    with pytest.raises(WitnessesMissed):
        Policy(LOG.key, KEYS, 2).check(signed)


def test_a_cosignature_from_the_future_does_not_count() -> None:
    signed = LOG_OF_5.signed(witnesses=WITNESSES[:1])
    policy = Policy(LOG.key, KEYS, 1)
    assert policy.check(signed, NOW).witnesses
    with pytest.raises(WitnessesMissed):
        policy.check(signed, NOW - 1)


def test_another_logs_checkpoint_is_refused() -> None:
    other = Signer("other.example/log", LOG.type)
    with pytest.raises(CheckpointUntrusted, match="another log"):
        Policy(other.key).check(LOG_OF_5.signed())
    stranger = other.signed(LOG_OF_5.checkpoint())
    with pytest.raises(CheckpointUntrusted, match="did not sign"):
        Policy(LOG.key).check(stranger)


@pytest.mark.parametrize(
    "fields",
    [
        {"log": KEYS[0]},
        {"witnesses": (LOG.key,)},
        {"witnesses": (KEYS[0], KEYS[0])},
        {"witnesses": (KEYS[0], VerifierKey("other", KEYS[0].type, KEYS[0].public))},
        {"threshold": 4},
        {"threshold": -1},
        {"witnesses": KEYS * (WITNESSES_MAX // 3 + 1)},
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(LogMalformed):
        replace(Policy(LOG.key, KEYS, 1), **fields)


def test_cosignatures_are_put_below_a_checkpoint() -> None:
    signed = LOG_OF_5.signed()
    mine = WITNESSES[0].signed(signed.checkpoint, NOW).signatures
    stranger = NoteSignature("stranger", bytes(4), b"x")
    cosigned = signed.cosigned([*mine, stranger], KEYS)
    assert cosigned.signatures == (*signed.signatures, *mine)
    assert cosigned.cosigned(mine, KEYS) is cosigned
    wrong = WITNESSES[1].signed(Checkpoint(ORIGIN, 1, bytes(32)), NOW).signatures
    with pytest.raises(CheckpointUntrusted):
        cosigned.cosigned(wrong, KEYS)
