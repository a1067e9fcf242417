import hashlib
import io
import json
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offline_sdk import audit as program
from offline_sdk.errors import EvidenceRefused
from offline_sdk.transparency import Opening, Policy, leaf_hashes
from offline_sdk.transparency import evidence_bundle as bundles
from offline_sdk.transparency.commitment import ERASED_LINE
from offline_sdk.transparency.evidence_bundle import (
    CONTENT_BYTES_MAX,
    FILES_MAX,
    RECORDS_MAX,
    BundleWriter,
    EvidenceBundle,
    Leaf,
    Manifest,
    proof_file,
)
from offline_sdk.transparency.evidence_check import Checked, Fault, check
from tests.offline_sdk.transparency.log_maker import LOG, NOW, WITNESSES, Log, Signer

KEYS = tuple(witness.key for witness in WITNESSES)
POLICY = Policy(LOG.key, KEYS, 2)
SUBJECT = "0197f0f0-5c00-7000-8000-0000000000a0"
OPENINGS = [Opening(bytes([number]) * 32, b'{"number":%d,"type":"event"}' % number) for number in range(12)]
INDEXES = (1, 4, 11)
ERASED = 4


class CommittedLog(Log):
    """A log of openings, which has commitments as entries."""

    def append(self, records: Sequence[bytes]) -> None:
        self.records += records
        self.frontier = (grown := self.frontier.append(leaf_hashes(map(committed, records)))).frontier
        self.tiles |= {(edge.level or 0, edge.index): content for edge, content in grown.frontier.partial}

    @property
    def entries(self) -> list[bytes]:
        return list(map(committed, self.records))


def committed(line: bytes) -> bytes:
    return Opening.read(line).entry


TREE = CommittedLog()
TREE.append([opening.line for opening in OPENINGS])
LEAVES = tuple(Leaf(index, "event", SUBJECT, OPENINGS[index].entry.decode()) for index in INDEXES)
MANIFEST = Manifest("https://id.gs1.org/01/09506000134352/21/1", LEAVES, {}, (SUBJECT,), (), is_cut=False)

# Courts keep such files: never change how they are written. The README and Python's zip format are part of it.
GOLDEN = "033deeef6fe7da08da7c0c8898c0809d1d9a47315075c58b12a60cee984abec5"


def contents() -> dict[str, bytes]:
    """The files of a bundle of three records, one of them erased, without manifest and readme."""
    lines = [ERASED_LINE if index == ERASED else OPENINGS[index].line for index in INDEXES]
    files = {"events.ndjson": b"".join(line + b"\n" for line in lines)}
    files |= {proof_file(index): bytes(TREE.evidence(index, WITNESSES[:2])) for index in INDEXES}
    return files | {"checkpoint": bytes(TREE.signed(witnesses=WITNESSES[:2])), "key": f"{LOG.key}\n".encode()}


def packed(files: Mapping[str, bytes], manifest: Manifest = MANIFEST) -> bytes:
    made = io.BytesIO()
    writer = BundleWriter(made)
    for name, content in files.items():
        writer.add(name, content)
    writer.end(manifest)
    return made.getvalue()


WHOLE = packed(contents())


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "evidence.zip"
    path.write_bytes(WHOLE)
    return path


def unpacked(content: bytes = WHOLE) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repacked(files: Mapping[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    """As any other program packs files, the manifest as it was."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", kind) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def look(path: Path, content: bytes, policy: Policy = POLICY) -> Checked:
    path.write_bytes(content)
    with EvidenceBundle(path) as bundle:
        return check(bundle, policy, NOW)


def refused(path: Path, content: bytes) -> str:
    with pytest.raises(EvidenceRefused) as caught:
        look(path, content)
    return caught.value.message


def test_a_bundle_made_here_has_these_bytes() -> None:
    assert packed(contents()) == WHOLE
    copied = io.BytesIO()
    writer = BundleWriter(copied)
    for name, content in contents().items():
        writer.copy(name, io.BytesIO(content))
    writer.end(MANIFEST)
    assert copied.getvalue() == WHOLE
    assert hashlib.sha256(WHOLE).hexdigest() == GOLDEN


def test_a_whole_bundle_is_whole(whole: Path) -> None:
    outcome = look(whole, WHOLE)
    assert (outcome.is_whole, outcome.records, outcome.erased) == (True, 3, 1)
    assert outcome.checkpoint == TREE.checkpoint()
    assert outcome.witnesses == tuple((key, NOW) for key in KEYS[:2])
    assert outcome.manifest.pending == (SUBJECT,)
    assert look(whole, repacked(unpacked() | {"proofs/": b""})).is_whole
    nothing = packed({"events.ndjson": b"", "checkpoint": contents()["checkpoint"]}, Manifest("x", (), {}))
    assert look(whole, nothing).is_whole


def test_every_file_is_named_by_the_manifest() -> None:
    files = unpacked()
    listed = json.loads(files.pop("manifest.json"))["files"]
    assert listed == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert "fanxing-audit evidence" in files["README.txt"].decode()


Files = dict[str, bytes]


def _with(name: str, change: Callable[[bytes], bytes]) -> Callable[[Files], Files]:
    return lambda files: files | {name: change(files[name])}


def _without(name: str) -> Callable[[Files], Files]:
    return lambda files: {one: content for one, content in files.items() if one != name}


def _forged(files: Files) -> Files:
    """A record that was never logged, with an entry of its own in the manifest."""
    told = json.loads(files["manifest.json"])
    told["leaves"][0]["entry"] = (forged := Opening(bytes(32), b'{"forged":1}')).entry.decode()
    lines = files["events.ndjson"].split(b"\n")
    return files | {
        "manifest.json": json.dumps(told).encode(),
        "events.ndjson": b"\n".join([forged.line, *lines[1:]]),
    }


_OTHER_CHECKPOINT = bytes(TREE.signed(11, WITNESSES[:2]))


@pytest.mark.parametrize(
    ("change", "fault", "file", "index"),
    [
        (_without("events.ndjson"), Fault.FILE_MISSING, "events.ndjson", None),
        (_without("README.txt"), Fault.FILE_MISSING, "README.txt", None),
        (_without(proof_file(4)), Fault.FILE_MISSING, proof_file(4), None),
        (lambda files: files | {"more.txt": b""}, Fault.FILE_UNLISTED, "more.txt", None),
        (_with("checkpoint", lambda _: b"junk"), Fault.CHECKPOINT_UNTRUSTED, "checkpoint", None),
        (_with("checkpoint", lambda old: old.replace(b"12", b"13", 1)), Fault.CHECKPOINT_UNTRUSTED, "checkpoint", None),
        (_with("checkpoint", lambda _: bytes(TREE.signed())), Fault.WITNESSES_MISSED, "checkpoint", None),
        (_with("checkpoint", lambda _: _OTHER_CHECKPOINT), Fault.PROOF_WRONG, proof_file(1), 1),
        (_with("events.ndjson", lambda old: old.replace(b"1,", b"2,", 1)), Fault.RECORD_ALTERED, "events.ndjson", 1),
        (_with("events.ndjson", lambda _: b"\xff\n"), Fault.RECORD_ALTERED, "events.ndjson", 1),
        (_with("events.ndjson", lambda old: old[: old.index(b"\n") + 1]), Fault.RECORD_MISSING, "events.ndjson", 4),
        (_with("events.ndjson", lambda old: old + b"{}\n"), Fault.RECORD_UNLISTED, "events.ndjson", None),
        (_forged, Fault.PROOF_WRONG, proof_file(1), 1),
        (_with(proof_file(4), lambda _: bytes(TREE.evidence(1, WITNESSES[:2]))), Fault.PROOF_WRONG, proof_file(4), 4),
        (_with(proof_file(4), lambda _: bytes(TREE.evidence(4))), Fault.PROOF_WRONG, proof_file(4), 4),
        (_with(proof_file(11), lambda _: b"\xff"), Fault.PROOF_WRONG, proof_file(11), 11),
        (_with("README.txt", lambda old: old + b"."), Fault.FILE_ALTERED, "README.txt", None),
        (_with("key", lambda _: b"another"), Fault.FILE_ALTERED, "key", None),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_first_fault_is_named(
    whole: Path, change: Callable[[Files], Files], fault: Fault, file: str, index: int | None
) -> None:
    finding = look(whole, repacked(change(unpacked()))).finding
    assert finding is not None
    assert (finding.fault, finding.file, finding.index) == (fault, file, index)


def test_a_bundle_of_another_key_is_not_believed(whole: Path) -> None:
    outcome = look(whole, WHOLE, Policy(Signer(LOG.name + "2", LOG.type).key))
    assert outcome.finding is not None
    assert (outcome.finding.fault, outcome.checkpoint) == (Fault.CHECKPOINT_UNTRUSTED, None)
    assert look(whole, WHOLE, Policy(LOG.key)).is_whole


def _named(*names: str) -> bytes:
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w") as archive:
        warnings.simplefilter("ignore")
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), b"x")
    return made.getvalue()


@pytest.mark.parametrize(
    "names",
    [
        ("../key",),
        ("/key",),
        ("proofs/../key",),
        ("proofs/a/b",),
        ("C:\\key",),
        ("a\\b",),
        ("key.",),
        (".key",),
        ("",),
        ("k\u00e9y",),
        ("x" * 101,),
        ("key", "key"),
        ("key", "KEY"),
        ("proofs/", "proofs/"),
    ],
    ids=ascii,
)
def test_names_of_other_places_are_refused(whole: Path, names: tuple[str, ...]) -> None:
    assert refused(whole, _named(*names))


def test_a_name_that_is_cut_at_a_nul_is_refused(whole: Path) -> None:
    assert refused(whole, _named("keyXother").replace(b"keyXother", b"key\0other"))


def _claiming(content: bytes, name: bytes, size: int) -> bytes:
    """A zip whose directory says that a file has another size unpacked."""
    at = content.rindex(name) - 46
    return content[: at + 24] + size.to_bytes(4, "little") + content[at + 28 :]


def test_bombs_are_refused_before_anything_is_unpacked(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = repacked(unpacked() | {"bomb": bytes(1024)})
    rest = sum(map(len, unpacked().values()))
    assert "together" in refused(whole, _claiming(bomb, b"bomb", CONTENT_BYTES_MAX - rest + 1))
    # What claims to be small gives no more than it claims.
    monkeypatch.setattr(bundles, "CONTENT_BYTES_MAX", rest)
    lying = _claiming(repacked(unpacked() | {"key": bytes(1 << 20)}), b"key", len(unpacked()["key"]))
    assert refused(whole, lying)
    assert look(whole, WHOLE).is_whole
    monkeypatch.setattr(bundles, "CONTENT_BYTES_MAX", rest - 1)
    assert "together" in refused(whole, WHOLE)


def test_no_more_files_are_read_than_allowed(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(unpacked())
    monkeypatch.setattr(bundles, "FILES_MAX", count)
    assert look(whole, WHOLE).is_whole
    monkeypatch.setattr(bundles, "FILES_MAX", count - 1)
    assert "files" in refused(whole, WHOLE)
    monkeypatch.undo()
    directory = int.from_bytes(WHOLE[-10:-6], "little")
    monkeypatch.setattr(bundles, "DIRECTORY_BYTES_MAX", directory)
    assert look(whole, WHOLE).is_whole
    monkeypatch.setattr(bundles, "DIRECTORY_BYTES_MAX", directory - 1)
    assert refused(whole, WHOLE)
    monkeypatch.undo()
    monkeypatch.setattr(bundles, "FILE_BYTES_MAX", len(WHOLE))
    assert look(whole, WHOLE).is_whole
    monkeypatch.setattr(bundles, "FILE_BYTES_MAX", len(WHOLE) - 1)
    assert refused(whole, WHOLE)


def test_a_directory_of_millions_is_not_read(whole: Path) -> None:
    row = _named("key")[-22 - 49 : -22]
    end = b"PK\x05\x06" + bytes(4) + b"\x01\0\x01\0" + (len(row) * 40_000).to_bytes(4, "little") + bytes(6)
    assert "files" in refused(whole, row * 40_000 + end)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        WHOLE[:-1],
        WHOLE + b"x",
        WHOLE[:-2] + b"\x01\0x",
        WHOLE[:-22] + b"PK\x06\x07" + bytes(16) + WHOLE[-22:],
        repacked({name: content for name, content in unpacked().items() if name != "manifest.json"}),
        repacked(unpacked(), zipfile.ZIP_BZIP2),
        repacked(unpacked(), zipfile.ZIP_LZMA),
        _named(),
    ],
    ids=["empty", "junk", "cut off", "longer", "comment", "zip64", "no manifest", "bzip2", "lzma", "no files"],
)
def test_what_is_no_bundle_is_refused(whole: Path, content: bytes) -> None:
    assert refused(whole, content)


def test_a_folder_and_a_device_are_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(EvidenceRefused):
        EvidenceBundle(Path("/dev/zero"))
    with pytest.raises(IsADirectoryError):
        EvidenceBundle(tmp_path)


def _told(**changed: Any) -> bytes:
    return json.dumps(json.loads(bytes(MANIFEST)) | changed).encode()


def _leaf(**changed: Any) -> dict[str, Any]:
    return LEAVES[0].as_json() | changed


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b"9" * 5_000,
        _told(format="fanxing-evidence@2"),
        _told(thing=None),
        _told(is_cut=1),
        _told(leaves={}),
        _told(leaves=[1]),
        _told(leaves=[_leaf(), _leaf()]),
        _told(leaves=[_leaf(index=-1)]),
        _told(leaves=[_leaf(index=True)]),
        _told(leaves=[_leaf(index=2**53 - 1)]),
        _told(leaves=[_leaf(kind="Event")]),
        _told(leaves=[_leaf(subject="../x")]),
        _told(leaves=[_leaf(entry="sha-256:" + "0" * 64)]),
        _told(leaves=[_leaf(entry=None)]),
        _told(pending=["x"]),
        _told(unlogged=None),
        _told(files={"../x": "0" * 64}),
        _told(files={"x": "0"}),
        _told(files={"x": None}),
        _told(files={f"x{number}": "0" * 64 for number in range(FILES_MAX + 1)}),
        _told(pending=[SUBJECT] * (RECORDS_MAX + 1)),
        _told(leaves=[_leaf(index=number) for number in range(RECORDS_MAX + 1)]),
    ],
    ids=lambda content: f"{len(content)} {content[:40]!r}",
)
def test_a_manifest_of_another_form_is_refused(content: bytes) -> None:
    with pytest.raises(EvidenceRefused):
        Manifest.read(content)


def test_a_manifest_is_read_as_it_was_written() -> None:
    largest = replace(
        MANIFEST,
        leaves=tuple(replace(LEAVES[0], index=number) for number in range(RECORDS_MAX)),
        files={f"x{number}": "0" * 64 for number in range(FILES_MAX)},
        pending=(SUBJECT,) * RECORDS_MAX,
    )
    for manifest in (MANIFEST, largest):
        assert Manifest.read(bytes(manifest)) == manifest
    assert Manifest.read(_told(another="member")) == MANIFEST
    with pytest.raises(EvidenceRefused):
        Manifest.read(bytes(MANIFEST) + b" " * bundles.MANIFEST_BYTES_MAX)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.sampled_from([WHOLE, repacked(unpacked())]),
    at=st.integers(0, len(WHOLE)),
    put=st.binary(max_size=4),
    cut=st.integers(0, 4),
    from_end=st.booleans(),
)
def test_a_damaged_bundle_is_refused_by_name_or_has_a_fault(
    whole: Path, content: bytes, at: int, put: bytes, cut: int, from_end: bool
) -> None:
    at %= len(content)
    at = len(content) - at if from_end else at
    damaged = content[:at] + put + content[at + cut :]
    try:
        outcome = look(whole, damaged, Policy(LOG.key))
    except EvidenceRefused:
        return
    # What still counts as whole has the same files.
    assert not outcome.is_whole or unpacked(damaged) == unpacked()


def test_the_program_checks_a_bundle(whole: Path, tmp_path: Path) -> None:
    keys = ["--key", str(LOG.key), "--witness", str(KEYS[0])]
    done = _run(whole, *keys)
    root = TREE.checkpoint().root.hex()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "WHOLE: 3 records (1 of them erased, which only the entry is left of) of log.example.cn/fanxing, "
        f"under 12 leaves, root {root}",
        "cosigned by witness.example/w1 at 2026-09-21T14:13:20Z",
        "the bundle says that 1 records more were not under a checkpoint yet, and 0 were never logged",
    ]


def test_the_program_names_the_fault(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    altered = unpacked()
    altered["events.ndjson"] = altered["events.ndjson"].replace(b'"number":11', b'"number":12')
    whole.write_bytes(repacked(altered))
    message = "events.ndjson, line 3, is not the record that leaf 11 commits to"
    assert program.main(["evidence", str(whole), "--key", str(LOG.key)]) == 1
    assert capsys.readouterr().out == f"RECORD_ALTERED: {message}\n"
    assert program.main(["evidence", str(whole), "--key", str(LOG.key), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "whole": False,
        "origin": "log.example.cn/fanxing",
        "size": 12,
        "root": TREE.checkpoint().root.hex(),
        "witnesses": [],
        "records": 2,
        "erased": 1,
        "pending": 1,
        "unlogged": 0,
        "cut": False,
        "finding": {
            "fault": "record_altered",
            "file": "events.ndjson",
            "index": 11,
            "line": 3,
            "message": message,
        },
    }
    whole.write_bytes(b"junk")
    assert program.main(["evidence", str(whole), "--key", str(LOG.key)]) == 2
    assert "EvidenceRefused" in capsys.readouterr().err
    assert program.main(["evidence", str(whole.parent / "nowhere"), "--key", str(LOG.key)]) == 2


def test_faults_are_these_and_no_others() -> None:
    # Programs compare these texts. Never change or remove one.
    assert [fault.value for fault in Fault] == [
        "file_missing",
        "file_unlisted",
        "checkpoint_untrusted",
        "witnesses_missed",
        "record_missing",
        "record_altered",
        "record_unlisted",
        "proof_wrong",
        "file_altered",
    ]


@pytest.mark.skipif(shutil.which("unzip") is None, reason="no unzip here")
def test_another_program_unpacks_it(whole: Path) -> None:
    assert subprocess.run(["unzip", "-tqq", whole], check=False, capture_output=True).returncode == 0


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "offline_sdk.audit", "evidence", *map(str, arguments)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
