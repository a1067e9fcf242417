"""Roots: only a chain that was signed from the pin on is followed, and what a device remembers only rises."""

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from struct import Struct
from typing import Final

from offline_sdk import DocumentType, Root, Signer, TrustError, cose
from offline_sdk.trust_store import Memory, Trust, advance
from tests.fuzz import documents, published
from tests.fuzz.mutation import changed_bytes, changed_cbor
from tests.fuzz.target import INPUT_BYTES_MAX, PUBLISHERS, RAW, SIGNED, Target, mode_of, must
from tests.fuzz.trace import path_of
from tests.offline_sdk.named_keys import NOW, Key, key, signed

PIN: Final = documents.ROOTS[0][0].fingerprint
_FRAME: Final = Struct(">BBH")
_FRAMES_MAX: Final = 8
_BY: Final[dict[DocumentType, tuple[Key, ...]]] = {
    DocumentType.ROOT: documents.ANYONE,
    DocumentType.BUNDLE: (*PUBLISHERS, *documents.NEW_PUBLISHERS, key("stranger")),
    DocumentType.DELTA: (*PUBLISHERS, *documents.NEW_PUBLISHERS, key("stranger")),
}
_TYPES: Final = tuple(DocumentType)
_PAYLOADS: Final = {
    DocumentType.ROOT: tuple(root.payload() for root in (*(root for root, _by in documents.ROOTS), *documents.FORKS)),
    DocumentType.BUNDLE: tuple(bundle.payload() for bundle in (*documents.BUNDLES, *documents.ODD_BUNDLES)),
    DocumentType.DELTA: tuple(delta.payload() for delta in documents.DELTAS),
}
_DOCUMENTS: Final = (*documents.ROOT_DOCUMENTS, *documents.BUNDLE_DOCUMENTS, *documents.DELTA_DOCUMENTS)
_GENUINE: Final = frozenset(_DOCUMENTS)


@dataclass(frozen=True)
class _Frame:
    """A document to be signed: a payload, and which keys sign it, a bit each (or one, for a bundle or delta)."""

    type: DocumentType
    mask: int
    payload: bytes

    def by(self) -> tuple[Key, ...]:
        able = _BY[self.type]
        if self.type is DocumentType.ROOT:
            return tuple(one for at, one in enumerate(able) if self.mask >> at & 1)
        return (able[self.mask % len(able)],)

    def written(self) -> bytes:
        return _FRAME.pack(_TYPES.index(self.type), self.mask, len(self.payload)) + self.payload


def _frames(data: bytes) -> list[_Frame]:
    frames: list[_Frame] = []
    while len(data) >= _FRAME.size and len(frames) < _FRAMES_MAX:
        kind, mask, count = _FRAME.unpack_from(data)
        frames.append(_Frame(_TYPES[kind % 3], mask, data[_FRAME.size : _FRAME.size + count]))
        data = data[_FRAME.size + count :]
    return frames


def _state(at: int) -> tuple[Trust, Memory]:
    """What a device holds before: nothing, or the first documents of the genuine ones."""
    return _STATES[at % len(_STATES)]


def _held() -> tuple[tuple[Trust, Memory], ...]:
    roots, (bundles, others) = (
        documents.ROOT_DOCUMENTS,
        (documents.BUNDLE_DOCUMENTS[::2], documents.BUNDLE_DOCUMENTS[1::2]),
    )
    files = (roots[0], roots[0] + bundles[1], roots[0] + others[0], b"".join(roots[:3]) + bundles[2], b"".join(roots))
    held = [advance(Trust(), cose.read(file), PIN, Memory(), None) for file in files]
    # Memories without a cache too: it may be gone, or have been exchanged for an older one.
    return ((Trust(), Memory()), *held, *((Trust(), memory) for _trust, memory in held[1:4]), (held[0][0], held[3][1]))


_STATES: Final = _held()


def _check(data: bytes) -> str:
    mode, rest = mode_of(data, 2)
    (held, memory), rest = _state(rest[0] if rest else 0), rest[1:]
    made: dict[bytes, tuple[Key, ...]] = {}
    content = rest
    if mode == SIGNED:
        made = {signed(frame.type, frame.payload, *frame.by()): frame.by() for frame in _frames(rest)}
        content = b"".join(signed(frame.type, frame.payload, *frame.by()) for frame in _frames(rest))
    try:
        trust, after = advance(held, cose.read(content), PIN, memory, NOW)
    except TrustError as error:
        return path_of(error)
    _require_chain(trust, made)
    _require_bundle(trust, held, made)
    _require_memory(trust, memory, after)
    must(trust.root is not None and trust.root.expires > NOW, "an expired root is never taken")
    again, same = advance(Trust(), cose.read(trust.content()), PIN, after, None) if trust.roots else (trust, after)
    must((again, same) == (trust, after), "what is held loads again as it was")
    return f"{len(held.roots)} {memory.seq} to {len(trust.roots)} {trust.bundle and trust.bundle.seq} {after.seq}"


def _require_chain(trust: Trust, made: dict[bytes, tuple[Key, ...]]) -> None:
    first, document = trust.roots[0]
    must(hashlib.sha256(document.payload).digest() == PIN == first.fingerprint, "the first root is the pinned one")
    for (before, _), (after, envelope) in pairwise(trust.roots):
        must(after.version == before.version + 1 and after.domain == before.domain, "versions rise by one")
        must(after.payload() == envelope.payload, "a root is what was signed, to the byte")
        signers = {one.signer for one in _signed_by(envelope.raw, made)}
        must(_enough(signers, before) and _enough(signers, after), "enough keys signed, of both roots")


def _enough(signers: set[Signer], root: Root) -> bool:
    return len(signers & set(root.keys)) >= root.threshold


def _signed_by(raw: bytes, made: dict[bytes, tuple[Key, ...]]) -> tuple[Key, ...]:
    if raw in made:
        return made[raw]
    must(raw in _GENUINE, "what was not signed is never taken")
    return _ROOT_SIGNERS.get(raw, documents.ANYONE)


def _require_bundle(trust: Trust, held: Trust, made: dict[bytes, tuple[Key, ...]]) -> None:
    if trust.bundle is None or trust.root is None:
        must(trust.bundle_document == b"", "no bundle, no document")
        return
    raw = trust.bundle_document
    envelope, *others = cose.read(raw)
    must(not others and envelope.payload == trust.bundle.payload(), "a bundle is its document")
    must(cose.right_signers(envelope, trust.root.publishers), "a publisher of the newest root signed the bundle")
    must(raw in made or raw in _GENUINE, "what was not signed is never taken")
    must(trust.bundle.domain == trust.root.domain, "bundle and root are of one domain")
    must(raw == held.bundle_document or trust.bundle.expires > NOW, "an expired bundle is never taken")


def _require_memory(trust: Trust, before: Memory, after: Memory) -> None:
    must(after.root_version >= before.root_version, "root versions only rise")
    changed = any(not set(a.publishers) & set(b.publishers) for (a, _), (b, _) in pairwise(trust.roots))
    must(after.seq >= before.seq or changed, "seq only rises, unless all publishers changed")
    must(trust.bundle is None or after.bundle == trust.bundle.fingerprint.hex(), "the bundle held is remembered")
    if after.seq == before.seq and not changed:
        must(after.bundle == before.bundle, "one seq has one content")


def _mutate(data: bytes, dice: Random) -> bytes:
    mode, rest = mode_of(data, 2)
    state, rest = bytes([dice.randrange(len(_STATES)) if dice.random() < 0.3 else (rest[:1] or b"\0")[0]]), rest[1:]
    if mode == RAW:
        return bytes([RAW]) + state + changed_bytes(rest, _DOCUMENTS, dice)
    frames = _frames(rest) or [_some_frame(dice)]
    at, to = dice.randrange(len(frames)), dice.randrange(len(frames))
    frame = frames[at]
    match dice.randrange(8):
        case 0:
            frames.insert(at, _some_frame(dice))
        case 1:
            del frames[at]
        case 2:
            frames[at], frames[to] = frames[to], frame
        case 3:
            frames[at] = _Frame(frame.type, frame.mask ^ 1 << dice.randrange(5), frame.payload)
        case 4:
            frames.append(_some_frame(dice))
        case _:
            frames[at] = _Frame(frame.type, frame.mask, changed_cbor(frame.payload, _PAYLOADS[frame.type], dice)[:2048])
    written = b"".join(one.written() for one in frames[:_FRAMES_MAX])
    return (bytes([SIGNED]) + state + written)[:INPUT_BYTES_MAX]


def _some_frame(dice: Random) -> _Frame:
    type_ = dice.choices(_TYPES, (5, 3, 2))[0]
    mask = 31 if type_ is DocumentType.ROOT and dice.random() < 0.5 else dice.randrange(32)
    return _Frame(type_, mask, dice.choice(_PAYLOADS[type_]))


def _mask(by: tuple[Key, ...], able: tuple[Key, ...]) -> int:
    return sum(1 << at for at, one in enumerate(able) if one in by)


_ROOT_SIGNERS: Final = {
    document: by for document, (_root, by) in zip(documents.ROOT_DOCUMENTS, documents.ROOTS, strict=True)
}
_ROOT_FRAMES: Final = tuple(
    _Frame(DocumentType.ROOT, _mask(by, documents.ANYONE), root.payload()) for root, by in documents.ROOTS
)
_FORK_FRAMES: Final = tuple(
    _Frame(DocumentType.ROOT, _mask(documents.ROOT_KEYS, documents.ANYONE), root.payload()) for root in documents.FORKS
)


def _seeds() -> tuple[bytes, ...]:
    bundle = [_Frame(DocumentType.BUNDLE, 0, payload) for payload in _PAYLOADS[DocumentType.BUNDLE]]
    delta = [_Frame(DocumentType.DELTA, 0, payload) for payload in _PAYLOADS[DocumentType.DELTA]]
    newest = _Frame(DocumentType.BUNDLE, 2, _PAYLOADS[DocumentType.BUNDLE][0])
    files = (
        _ROOT_FRAMES[:1], _ROOT_FRAMES[:3], _ROOT_FRAMES, (*_ROOT_FRAMES[:1], bundle[1]),
        (*_ROOT_FRAMES[:3], bundle[2]),
        (*_ROOT_FRAMES[:1], bundle[0], delta[0], delta[3]), (delta[3],), (*_ROOT_FRAMES, newest), (bundle[2],),
        (*_ROOT_FRAMES[:1], *_FORK_FRAMES[:1]), (*_ROOT_FRAMES[:1], *_FORK_FRAMES), _FORK_FRAMES[1:],
    )  # fmt: skip
    told = [
        [_Frame(one.type, 31 if one.type is DocumentType.ROOT else 0, one.payload) for one in file]
        for file in published.trust_files()
    ]
    made = [b"".join(frame.written() for frame in file) for file in files]
    from_vectors = [b"".join(frame.written() for frame in file) for file in told]
    raw = [b"".join(signed(frame.type, frame.payload, *frame.by()) for frame in file) for file in files[:5]]
    return (
        *(bytes([SIGNED, state]) + one for one in made for state in range(len(_STATES))),
        *(bytes([SIGNED, at % len(_STATES)]) + one for at, one in enumerate(from_vectors)),
        *(bytes([RAW, 0]) + one for one in raw),
    )


TARGET: Final = Target("root", _seeds(), _mutate, _check)
