"""Bundling: packs what proves the records about a thing into one zip (docs/transparency-log.md, "Evidence bundles").

Proved from stored tiles some hundred records at a time, and no transaction is held while the zip is written.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Final, cast

from kit.db import Database
from kit.errors import Invalid
from offline_sdk.transparency.commitment import ERASED_LINE
from offline_sdk.transparency.evidence_bundle import (
    CODE_FILE,
    KEY_FILE,
    RECORDS_MAX,
    WITNESSES_FILE,
    BundleWriter,
    Leaf,
    Manifest,
)
from offline_sdk.transparency.export import CHECKPOINT_FILE, EVENTS_FILE
from scan_api.transparency import attached, proofs, store, witnesses
from scan_api.transparency.attached import PROVED_AT_ONCE, Recorded
from scan_api.transparency.proofs import Proved

RECORDS_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of a bundle; with their proofs still less than what a check reads."""
MEMORY_BYTES_MAX: Final = 1 << 20
"""Of a file that is being made; what is longer lies in a temporary file."""
BLOCK_BYTES: Final = 64 * 1024


class EvidenceTooLarge(Invalid):
    """More records tell of a thing than one bundle holds."""

    code = "EvidenceTooLarge"


@dataclass(frozen=True, slots=True)
class About:
    """What a bundle is made of: the thing's one name, and the ids of all that was recorded about it.

    `code` is what is said of the code that was asked for, None where it was none; `is_cut`: there was more.
    """

    thing: str
    subjects: Sequence[uuid.UUID]
    is_cut: bool = False
    code: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Bundled:
    """What a bundle holds: the log's origin and size, how many records, and of how many subjects there are none."""

    origin: str
    size: int
    records: int
    pending: int
    unlogged: int

    def as_json(self) -> dict[str, Any]:
        """As commands tell it."""
        return {name: getattr(self, name) for name in self.__slots__}


async def write(database: Database, about: About, file: BinaryIO) -> Bundled:
    """Write the bundle to a file that can be sought in; the same state of the log gives the same bytes.

    Raises LogMissing, EvidenceTooLarge, LogDamaged.
    """
    async with database.reading() as session:
        standing = await attached.standing_of(session, about.subjects)
        key = (await store.head_of(session)).key
        known = await store.witnesses_of(session)
    _require_small(about, standing.leaves)
    cosigned = set(witnesses.names_of(known, standing.signed))
    writer = BundleWriter(file)
    writer.add(CHECKPOINT_FILE, bytes(standing.signed))
    writer.add(KEY_FILE, f"{key}\n".encode())
    if cosigned:
        writer.add(WITNESSES_FILE, "".join(f"{one.key}\n" for one in known if one.name in cosigned).encode())
    if about.code is not None:
        writer.add(CODE_FILE, json.dumps(about.code, ensure_ascii=False, sort_keys=True, indent=1).encode() + b"\n")
    leaves: list[Leaf] = []
    with SpooledTemporaryFile(MEMORY_BYTES_MAX) as lines:
        for start in range(0, len(standing.leaves), PROVED_AT_ONCE):
            some = standing.leaves[start : start + PROVED_AT_ONCE]
            async with database.reading() as session:
                found = await proofs.prove(session, [one.entry_id for one in some], standing.signed)
            proved = [found[one.entry_id] for one in some]
            leaves += await asyncio.to_thread(_add, writer, proved, cast(BinaryIO, lines))
        lines.seek(0)
        await asyncio.to_thread(writer.copy, EVENTS_FILE, cast(BinaryIO, lines))
    pending, unlogged = (tuple(map(str, one)) for one in (standing.pending, standing.unlogged))
    manifest = Manifest(about.thing, tuple(leaves), {}, pending, unlogged, about.is_cut)
    await asyncio.to_thread(writer.end, manifest)
    head = standing.signed.checkpoint
    return Bundled(head.origin, head.size, len(leaves), len(pending), len(unlogged))


async def blocks(database: Database, about: About) -> AsyncIterator[bytes]:
    """The same, block by block."""
    with SpooledTemporaryFile(MEMORY_BYTES_MAX) as file:
        await write(database, about, cast(BinaryIO, file))
        file.seek(0)
        while block := file.read(BLOCK_BYTES):
            yield block


def _require_small(about: About, leaves: Sequence[Recorded]) -> None:
    size = sum(one.record_bytes or 0 for one in leaves)
    if max(len(leaves), len(about.subjects)) > RECORDS_MAX or size > RECORDS_BYTES_MAX:
        raise EvidenceTooLarge(
            f"a bundle holds at most {RECORDS_MAX:,} records of {RECORDS_BYTES_MAX:,} bytes together",
            hint="Ask with fewer steps, or for something smaller.",
        )


def _add(writer: BundleWriter, proved: Sequence[Proved], lines: BinaryIO) -> list[Leaf]:
    leaves = [Leaf(one.leaf_index, one.kind, str(one.subject), one.entry.decode()) for one in proved]
    for one, leaf in zip(proved, leaves, strict=True):
        writer.add(leaf.proof_file, bytes(one.evidence))
        lines.write((ERASED_LINE if one.opening is None else one.opening.line) + b"\n")
    return leaves
