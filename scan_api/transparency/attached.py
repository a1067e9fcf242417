"""Attached: what answers about events and acts carry of the log, by the ids of what was recorded.

A record that no signed checkpoint holds yet is pending, never proved: a proof is under what the log's key signed. What
would make an answer too long is left out of it, and named.
"""

import base64
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any, Final, TypeVar

from sqlmodel import col, func, select

from codes.log_queue import RECORD_BYTES_MAX, LogEntry
from kit.db import Session
from offline_sdk.transparency import Evidence, SignedCheckpoint, inclusion_path
from offline_sdk.transparency.evidence import EVIDENCE_BYTES_MAX
from offline_sdk.transparency.tree import HASH_BYTES
from scan_api.transparency import proofs
from scan_api.transparency.proofs import Proved
from scan_api.transparency.standing import BEHIND_MAX_S
from scan_api.transparency.store import LogLeaf

MEMBER: Final = "fanxing:evidence"
"""Of an answer, where somebody asks for evidence."""
ASKED_AT_ONCE: Final = 500
PROVED_AT_ONCE: Final = 50
"""Some hundredths of a second, in which a server does nothing else."""
ATTACHED_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of the records and proofs beside one answer; one record with its proof is never longer."""

assert ATTACHED_BYTES_MAX >= RECORD_BYTES_MAX + EVIDENCE_BYTES_MAX

Member = TypeVar("Member")


class State(StrEnum):
    """Whether a record is proved."""

    PROVED = "proved"
    PENDING = "pending"
    """Logged, and not under a signed checkpoint yet: it will be within `pending_within_s`."""
    UNLOGGED = "unlogged"
    """There is no record of it: it is older than the log."""
    LEFT_OUT = "left_out"
    """Logged and under the checkpoint, and left out: with it the answer would be too long."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A record about a subject: its place in the tree, and the bytes of the record; both None where there is none."""

    entry_id: uuid.UUID
    subject: uuid.UUID
    leaf_index: int | None
    record_bytes: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the records about some subjects stand, under one checkpoint; `leaves` ascending by index.

    `pending` and `unlogged` are subjects, in the order in which they were asked for.
    """

    signed: SignedCheckpoint
    leaves: tuple[Recorded, ...]
    pending: tuple[uuid.UUID, ...]
    unlogged: tuple[uuid.UUID, ...]


@dataclass(frozen=True, slots=True)
class Attached:
    """What proves the first records about some subjects: their evidence, all of it under `signed`."""

    signed: SignedCheckpoint
    pending: frozenset[uuid.UUID]
    left_out: Mapping[uuid.UUID, Recorded]
    proved: Mapping[uuid.UUID, Proved] = field(repr=False)

    def state_of(self, subject: uuid.UUID) -> State:
        """Whether a subject's record is proved."""
        if subject in self.proved:
            return State.PROVED
        if subject in self.left_out:
            return State.LEFT_OUT
        return State.PENDING if subject in self.pending else State.UNLOGGED

    def as_json(self, named: Iterable[tuple[str, uuid.UUID]]) -> dict[str, Any]:
        """The member `fanxing:evidence`: of each event (its id, its key) the leaf, the opening and a tlog-proof.

        Of what is left out, the leaf, and the entry by which `GET /log/entries/{entry_id}/proof` gives the rest.
        """
        head = self.signed.checkpoint
        return {
            "origin": head.origin,
            "size": head.size,
            "checkpoint": _base64(bytes(self.signed)),
            "pending_within_s": BEHIND_MAX_S,
            "events": [self._about(event_id, key) for event_id, key in named],
        }

    def _about(self, event_id: str, key: uuid.UUID) -> dict[str, Any]:
        told: dict[str, Any] = {"event": event_id, "state": self.state_of(key).value}
        if (proved := self.proved.get(key)) is not None:
            answer = proved.as_json()
            told |= {name: answer[name] for name in ("leaf_index", "entry", "opening")}
            told["proof"] = _base64(bytes(proved.evidence))
        if (recorded := self.left_out.get(key)) is not None:
            told |= {"leaf_index": recorded.leaf_index, "entry_id": str(recorded.entry_id)}
        return told


async def standing_of(session: Session, subjects: Sequence[uuid.UUID]) -> Standing:
    """Where all records about these subjects stand under the published checkpoint. Raises LogMissing."""
    signed = await proofs.published(session)
    found: list[Recorded] = []
    for some in _groups(dict.fromkeys(subjects), ASKED_AT_ONCE):
        asked = (
            select(LogEntry.entry_id, LogEntry.subject, LogLeaf.leaf_index, func.length(LogEntry.record))
            .outerjoin(LogLeaf, col(LogLeaf.entry_id) == LogEntry.entry_id)
            .where(col(LogEntry.subject).in_(some))
        )
        found += [Recorded(*row) for row in (await session.exec(asked)).all()]
    size = signed.checkpoint.size
    held = [one for one in found if one.leaf_index is not None and one.leaf_index < size]
    proved, logged = {one.subject for one in held}, {one.subject for one in found}
    return Standing(
        signed,
        tuple(sorted(held, key=lambda one: one.leaf_index or 0)),
        tuple(one for one in dict.fromkeys(subjects) if one in logged - proved),
        tuple(one for one in dict.fromkeys(subjects) if one not in logged),
    )


async def attach(session: Session, subjects: Sequence[uuid.UUID]) -> Attached:
    """The evidence of the first record about each of these subjects, such as events' keys, under one checkpoint.

    In the order of the subjects; whatever would make more than 16 MiB of records and proofs is left out. Who may see
    the records is the caller's to decide: they are in the evidence. Raises LogMissing, LogDamaged.
    """
    standing = await standing_of(session, subjects)
    first = {one.subject: one for one in reversed(standing.leaves)}
    chosen, left_out, room = [], {}, ATTACHED_BYTES_MAX
    for one in (first[subject] for subject in dict.fromkeys(subjects) if subject in first):
        size = _bytes_of(one, standing.signed)
        if size <= room:
            chosen.append(one)
            room -= size
        else:
            left_out[one.subject] = one
    proved: dict[uuid.UUID, Proved] = {}
    for some in _groups(chosen, PROVED_AT_ONCE):
        found = await proofs.prove(session, [one.entry_id for one in some], standing.signed)
        proved |= {one.subject: found[one.entry_id] for one in some if one.entry_id in found}
    return Attached(standing.signed, frozenset(standing.pending), left_out, proved)


def _bytes_of(recorded: Recorded, signed: SignedCheckpoint) -> int:
    """How long a record and its proof are, known before either is read."""
    index = recorded.leaf_index or 0
    path = (bytes(HASH_BYTES),) * len(inclusion_path(index, signed.checkpoint.size))
    return (recorded.record_bytes or 0) + len(bytes(Evidence(index, path, signed)))


def _groups(members: Iterable[Member], count: int) -> Iterator[list[Member]]:
    rest = iter(members)
    while group := list(islice(rest, count)):
        yield group


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
