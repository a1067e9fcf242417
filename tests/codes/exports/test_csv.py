"""CSV exports: bytes that never change, and files that are there whole or not at all."""

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from codes.exports import ExportKind, open_export
from codes.exports.csv import CsvExport
from codes.pipeline import Chunk
from offline_sdk import Profile
from tests.codes.conftest import VECTORS, Chunks, MakeOrder, vectors

BOTH = (Profile.OUTER, Profile.INNER)
MEMORY_MIB_MAX = 300

# What may never change: header, column order, LF line ends, no quoting, no byte order mark, issue order; and, for given
# keys, every digit. Printers' machines are set up for this form, and an order exported again must give the same labels
# as those already on the goods.
GOLDEN_SHA256 = {
    "outer.csv": "3d7245e8943e8dc40d9c795e247d4322c5582995e2691fba2b8c3af0e2cb7eed",
    "inner.csv": "d1adb580d26d69fd6bc1e09ad30650a10fcbecef688839fbd94bded528524181",
}


def export(chunks: Chunks, order: object, folder: Path) -> list[Path]:
    with CsvExport(order, folder) as writing:  # type: ignore[arg-type]
        for chunk in chunks(order):  # type: ignore[arg-type]
            writing.add(chunk)
    return writing.paths


def test_the_bytes_of_an_order_are_the_golden_ones(tmp_path: Path, make_order: MakeOrder, chunks: Chunks) -> None:
    paths = export(chunks, make_order(1_000, BOTH), tmp_path)
    assert [path.name for path in paths] == ["outer.csv", "inner.csv"]
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths} == GOLDEN_SHA256


def test_the_first_lines_are_the_published_vectors(tmp_path: Path, make_order: MakeOrder, chunks: Chunks) -> None:
    outer, inner = (path.read_bytes() for path in export(chunks, make_order(2, BOTH), tmp_path))
    first, first_inner, second = vectors()["valid"][:3]
    assert (
        outer
        == (f"serial,code_text\n{first['serial']},{first['text']}\n{second['serial']},{second['text']}\n").encode()
    )
    assert inner.startswith(f"serial,code_text\n{first['serial']},{first_inner['text']}\n".encode())
    assert inner.count(b"\n") == 3


@pytest.mark.parametrize("face", BOTH)
def test_an_order_of_one_face_has_one_file(
    tmp_path: Path, make_order: MakeOrder, chunks: Chunks, face: Profile
) -> None:
    (path,) = export(chunks, make_order(3, (face,)), tmp_path)
    assert os.listdir(tmp_path) == [path.name] == [f"{face.name.lower()}.csv"]


def test_an_export_made_again_is_the_same(tmp_path: Path, make_order: MakeOrder, chunks: Chunks) -> None:
    order = make_order(300, BOTH)
    first = [path.read_bytes() for path in export(chunks, order, tmp_path)]
    assert [path.read_bytes() for path in export(chunks, order, tmp_path)] == first


def test_a_failure_midway_leaves_no_file(tmp_path: Path, make_order: MakeOrder, chunks: Chunks) -> None:
    with pytest.raises(RuntimeError), CsvExport(make_order(3, BOTH), tmp_path) as writing:
        fail_after_one(writing, chunks, make_order)
    assert os.listdir(tmp_path) == []


def test_a_failure_midway_keeps_the_former_export(tmp_path: Path, make_order: MakeOrder, chunks: Chunks) -> None:
    former = [path.read_bytes() for path in export(chunks, make_order(3, BOTH), tmp_path)]
    with pytest.raises(RuntimeError), CsvExport(make_order(5, BOTH), tmp_path) as writing:
        fail_after_one(writing, chunks, make_order)
    assert [(tmp_path / name).read_bytes() for name in ("outer.csv", "inner.csv")] == former
    assert len(os.listdir(tmp_path)) == 2


def fail_after_one(writing: CsvExport, chunks: Chunks, make_order: MakeOrder) -> None:
    for chunk in chunks(make_order(5, BOTH)):
        writing.add(chunk)
        raise RuntimeError


def test_no_name_is_taken_before_the_last_code_is_written(
    tmp_path: Path, make_order: MakeOrder, chunks: Chunks
) -> None:
    with CsvExport(make_order(3), tmp_path) as writing:
        for chunk in chunks(make_order(3)):
            writing.add(chunk)
        assert not writing.paths[0].exists()
    assert writing.paths[0].exists()


def test_a_file_that_cannot_be_opened_leaves_none_behind(tmp_path: Path, make_order: MakeOrder) -> None:
    (tmp_path / "inner.csv.part").mkdir()
    with pytest.raises(OSError, match="inner"):
        CsvExport(make_order(3, BOTH), tmp_path).__enter__()
    assert os.listdir(tmp_path) == ["inner.csv.part"]


@pytest.mark.parametrize("kind", ExportKind)
def test_what_leaves_is_its_owners_alone(
    tmp_path: Path, make_order: MakeOrder, chunks: Chunks, kind: ExportKind
) -> None:
    # Whoever reads an inner code can claim its reward.
    with open_export(kind, make_order(1, BOTH), tmp_path) as writing:
        for chunk in chunks(make_order(1, BOTH)):
            writing.add(chunk)
    for path in writing.paths:
        top = tmp_path / path.relative_to(tmp_path).parts[0]
        assert stat.S_IMODE(top.stat().st_mode) & 0o077 == 0


def test_a_chunk_of_a_face_that_was_not_ordered_is_refused(tmp_path: Path, make_order: MakeOrder) -> None:
    with pytest.raises(KeyError), CsvExport(make_order(1), tmp_path) as writing:
        writing.add(Chunk(Profile.INNER, 0, ["0"], ["x"]))


_MILLION = """
import json, resource, sys, time
from datetime import UTC, datetime
from pathlib import Path
from nacl.bindings import crypto_sign, crypto_sign_seed_keypair
from codes.exports.csv import CsvExport
from codes.orders import CodeOrder
from codes.pipeline import generate
from codes.serials import SerialScheme

vectors = json.loads(Path(sys.argv[1]).read_text())
_, key = crypto_sign_seed_keypair(bytes.fromhex(vectors["keys"][0]["seed_hex"]))
order = CodeOrder(order_id=1, gtin="06901234567892", order_number=1, quantity=int(sys.argv[3]), outer_face=True,
    inner_face=False, base_url="https://id.example.cn", kid=1, created_at=datetime(2026, 5, 1, tzinfo=UTC))
began = time.perf_counter()
with CsvExport(order, Path(sys.argv[2])) as export:
    for chunk in generate(order, SerialScheme(bytes.fromhex(vectors["serial_key_hex"])),
                          lambda messages: [crypto_sign(message, key)[:64] for message in messages]):
        export.add(chunk)
took = time.perf_counter() - began
print(json.dumps({"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "rate": order.quantity / took}))
"""


@pytest.mark.slow
def test_a_million_codes_are_exported_in_little_memory(tmp_path: Path) -> None:
    def run(quantity: int) -> dict[str, float]:
        done = subprocess.run(
            [sys.executable, "-c", _MILLION, str(VECTORS), str(tmp_path), str(quantity)],
            cwd=VECTORS.parents[2],
            check=True,
            capture_output=True,
            text=True,
        )
        figures: dict[str, float] = json.loads(done.stdout)
        return figures

    small, large = run(10_000), run(1_000_000)
    print(f"\n1,000,000 codes to CSV: {large['mib']:.0f} MiB at most, {large['rate']:,.0f} codes/s")
    assert large["mib"] < MEMORY_MIB_MAX
    assert large["mib"] < small["mib"] + 20, "memory grows with the order"
    with (tmp_path / "outer.csv").open("rb") as file:
        lines = [line for number, line in enumerate(file) if number in (0, 1, 1_000_000)]
    first = vectors()["valid"][0]
    assert lines[:2] == [b"serial,code_text\n", f"{first['serial']},{first['text']}\n".encode()]
    assert len(lines) == 3
