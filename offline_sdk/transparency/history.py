"""History: read an export of a whole log once, recompute all of it, and say what is not as it was signed.

Memory stays the same whatever the size. Where the root differs, `diagnosis` looks for the first leaf that is wrong.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from ..errors import CheckpointUntrusted, LogMalformed, WitnessesMissed
from .checkpoint import Checkpoint, Policy, SignedCheckpoint
from .commitment import COMMITTED_ENTRY, ERASED_LINE, OPENING_LINE, Opening
from .diagnosis import first_wrong_entry
from .export import EVENTS_FILE, Export, Line
from .findings import AHEAD, Bundle, Change, Finding, bundle_of, change_of, first_difference
from .frontier import Frontier
from .note import VerifierKey
from .tiles import TILE_HEIGHT, TileId, check_tile, entry_of, tiles_of
from .tree import HASH_BYTES, leaf_hash, leaf_hashes

Progress = Callable[[int], None]


@dataclass(slots=True)
class Reading:
    """What one reading of the export found."""

    frontier: Frontier = field(default_factory=Frontier)
    """Of all entries up to the first bundle that is not complete."""
    tile_finding: Finding | None = None
    event_finding: Finding | None = None
    events: int | None = None
    erased: int = 0
    old_roots: dict[int, bytes] = field(default_factory=dict)
    """The roots that the entries lead to at the sizes of the older checkpoints, as far as they were read."""

    def leads_elsewhere(self, old: Checkpoint) -> bool:
        """Whether the entries were read up to this checkpoint, and lead to another root."""
        return self.old_roots.get(old.size, old.root) != old.root


@dataclass(frozen=True, slots=True)
class Audit:
    """The outcome of an audit: the export's checkpoint, who cosigned it and when, and the findings, the worst first.

    `entries` counts those that were read; `events` the lines of `events.ndjson`, None where there is none; `erased`
    those of them that only say that a record was erased: nothing can be verified of it but that there was one.
    """

    checkpoint: Checkpoint
    witnesses: tuple[tuple[VerifierKey, int], ...]
    entries: int
    events: int | None
    findings: tuple[Finding, ...]
    erased: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether all is as it was signed."""
        return not self.findings


def audit(
    export: Export,
    signed: SignedCheckpoint,
    policy: Policy,
    since: Sequence[SignedCheckpoint] = (),
    progress: Progress = lambda _count: None,
) -> Audit:
    """Audit an export against its signed checkpoint, and against older ones that somebody kept.

    `progress` hears how many more leaves were read. Raises OSError and LogMalformed when files cannot be read at all.
    """
    head = signed.checkpoint
    witnesses, findings = _signed_by(signed, policy)
    findings += [found for old in since for found in _signed_by(old, Policy(policy.log))[1]]
    if any(found.change is Change.CHECKPOINT_UNTRUSTED for found in findings):
        return Audit(head, (), 0, None, tuple(findings))
    findings += [_shortened(old.checkpoint, head) for old in since if old.checkpoint.size > head.size]
    olds = [old.checkpoint for old in since if old.checkpoint.size <= head.size]
    reading = read(export, head.size, [old.size for old in olds], progress)
    if reading.frontier.size != head.size or reading.frontier.root != head.root:
        wrong = first_wrong_entry(export, head, reading.frontier, *_bounds(head, reading, olds))
        findings += [wrong, *_besides(wrong, reading.event_finding)]
        # Up to a leaf that is known to be the first, the entries are what was signed.
        known = 0 if wrong.index is None or wrong.change is Change.ENTRY_IN_RANGE else wrong.index
        findings += [_rewritten(old) for old in olds if old.size <= known and reading.leads_elsewhere(old)]
    else:
        findings += [_rewritten(old) for old in olds if reading.leads_elsewhere(old)]
        findings += [found for found in (reading.event_finding, reading.tile_finding) if found is not None]
    return Audit(head, witnesses, reading.frontier.size, reading.events, tuple(findings), reading.erased)


def read(export: Export, size: int, old_sizes: Sequence[int], progress: Progress) -> Reading:
    """Read all entries, records and tiles once, and compare them with each other."""
    reading = Reading()
    lines = export.records()
    events = None if lines is None else _Events(lines)
    reading.old_roots = {old: Frontier().root for old in old_sizes if old == 0}
    for tile in tiles_of(size, None):
        bundle = bundle_of(export, tile)
        if not bundle.is_complete:
            break
        if events is not None:
            events.compare(bundle)
        hashes = leaf_hashes(bundle.entries)
        before = reading.frontier
        grown = before.append(hashes)
        for old in old_sizes:
            if before.size < old <= grown.frontier.size:
                reading.old_roots[old] = before.append(hashes[: old - before.size]).frontier.root
        reading.frontier = grown.frontier
        for complete in grown.tiles:
            _compare(export, complete.id, complete.hashes, reading)
        progress(tile.width)
    if reading.frontier.size == size:
        for edge, content in reading.frontier.partial:
            _compare(export, edge, content, reading)
    if events is not None:
        events.end(size)
        reading.event_finding, reading.events, reading.erased = events.finding, events.count, events.erased
    return reading


def _signed_by(signed: SignedCheckpoint, policy: Policy) -> tuple[tuple[tuple[VerifierKey, int], ...], list[Finding]]:
    try:
        return policy.check(signed).witnesses, []
    except CheckpointUntrusted as error:
        return (), [Finding(Change.CHECKPOINT_UNTRUSTED, error.message)]
    except WitnessesMissed as error:
        some = Policy(policy.log, policy.witnesses).check(signed).witnesses
        return some, [Finding(Change.WITNESSES_MISSED, error.message)]


def _shortened(old: Checkpoint, head: Checkpoint) -> Finding:
    message = f"the log had {old.size} leaves before, and the export has {head.size}; ask for a newer export"
    return Finding(Change.HISTORY_SHORTENED, message, head.size, head.size, old.size - head.size)


def _rewritten(old: Checkpoint) -> Finding:
    message = (
        f"the log signed two histories: the first {old.size} leaves are not those of the older checkpoint; keep both "
        "checkpoints, they prove it"
    )
    return Finding(Change.HISTORY_REWRITTEN, message, 0, max(old.size - 1, 0))


def _bounds(head: Checkpoint, reading: Reading, olds: Sequence[Checkpoint]) -> tuple[int, int]:
    """The leaves, end not included, among which the first wrong one is, by what older checkpoints say."""
    right = [old.size for old in olds if reading.old_roots.get(old.size) == old.root]
    wrong = [old.size for old in olds if reading.leads_elsewhere(old)]
    start, end = max(right, default=0), min(wrong, default=head.size)
    return (start, end) if start < end else (0, head.size)


def _besides(wrong: Finding, event: Finding | None) -> list[Finding]:
    """What of the records is still to be said beside an entry that is wrong.

    They were compared with the entries, so from a wrong entry on they may well be right. Where it is not known which
    entry is wrong, the first record that differs from its entry tells.
    """
    if event is None or event.index is None or wrong.index is None:
        return []
    return [event] if wrong.change is Change.ENTRY_IN_RANGE or event.index < wrong.index else []


def _compare(export: Export, tile: TileId, computed: bytes, reading: Reading) -> None:
    """Compare a tile with what the entries lead to, and keep the first difference."""
    if reading.tile_finding is not None:
        return
    path, content = export.tile(tile)
    if content is None:
        found = Finding(Change.TILE_MISSING, f"{path} is missing", tile.start, file=path)
    else:
        try:
            row = check_tile(content, tile)
        except LogMalformed as error:
            found = Finding(Change.TILE_ALTERED, error.message, tile.start, file=path)
        else:
            if row == computed:
                return
            at = next(at for at in range(len(computed)) if row[at] != computed[at]) // HASH_BYTES
            start = tile.start + (at << (TILE_HEIGHT * (tile.level or 0)))
            message = f"{path} has another hash than the entries lead to"
            found = Finding(Change.TILE_ALTERED, message, start, file=path, offset=at * HASH_BYTES)
    reading.tile_finding = found


class _Events:
    """Compares the lines of `events.ndjson` with the entries as they come by."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._differing: tuple[int, list[Line], list[bytes]] | None = None
        self.count = self.erased = 0
        self.finding: Finding | None = None

    def compare(self, bundle: Bundle) -> None:
        """Compare the entries of the next bundle with as many lines, unless a difference was found already."""
        if self.finding is not None:
            return
        if self._differing is not None:
            self._explain(bundle.entries)
            return
        lines = self._next(len(bundle.entries))
        found = [self._entry_at(line, entry) for line, entry in zip(lines, bundle.entries, strict=False)]
        if found != bundle.entries:
            at = first_difference(found, bundle.entries)
            # How it came is told with the next bundle, so that there is something to compare with.
            self._differing = bundle.tile.start + at, lines[at:], bundle.entries[at:]

    def end(self, size: int) -> None:
        """Count the lines that are left; lines beyond the last leaf were put in."""
        if self._differing is not None and self.finding is None:
            self._explain([])
        elif self.finding is None and self.count == size:
            extra = self._next(1)
            if extra:
                self._found("inserted", size, None, extra[0].offset)
        self.count += sum(1 for _ in self._lines)

    def _entry_at(self, line: Line, entry: bytes) -> bytes:
        """The entry of a line where `entry` is wanted: a record that was erased has whatever was committed to."""
        if line.content == ERASED_LINE and entry.startswith(COMMITTED_ENTRY):
            self.erased += 1
            return entry
        return _entry_of(line)

    def _next(self, count: int) -> list[Line]:
        lines = list(islice(self._lines, count))
        self.count += len(lines)
        return lines

    def _explain(self, more: list[bytes]) -> None:
        index, lines, wanted = self._differing or (0, [], [])
        lines = lines + self._next(len(wanted) + AHEAD)
        kind, count = change_of([_entry_of(line) for line in lines], wanted + more)
        self._found(kind, index, count, lines[0].offset if lines else None)

    def _found(self, kind: str, index: int, count: int | None, offset: int | None) -> None:
        change = Change(f"event_{kind}")
        message = f"{EVENTS_FILE}, line {index + 1}, is not the record of leaf {index}: a record was {kind}"
        self.finding = Finding(change, message, index, index, count, EVENTS_FILE, offset)


def _entry_of(line: Line) -> bytes:
    """The entry of a record or of an opening; one that can be no record is like no entry."""
    if line.content is None:
        return b""
    try:
        if line.content.startswith(OPENING_LINE):
            return Opening.read(line.content).entry
        return entry_of(line.content)
    except LogMalformed:
        return leaf_hash(line.content)
