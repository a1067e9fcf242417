"""Log maker: small logs with fixed keys, their exports, and the reference tree of Certificate Transparency."""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey

from offline_sdk.transparency import (
    Checkpoint,
    Evidence,
    Frontier,
    SignatureType,
    SignedCheckpoint,
    TileId,
    Tiles,
    VerifierKey,
    encode_entries,
    entry_of,
    leaf_hashes,
    prove_consistency,
    prove_inclusion,
    tiles_of,
)

ORIGIN: Final = "log.example.cn/fanxing"
NOW: Final = 1_790_000_000

# The leaves and roots that the reference implementation of Certificate Transparency publishes for RFC 6962.
CT_LEAVES: Final = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
CT_ROOTS: Final = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@dataclass(frozen=True)
class Signer:
    """A private key that is made from its name."""

    name: str
    type: SignatureType

    @property
    def signing(self) -> SigningKey:
        return SigningKey(hashlib.sha256(self.name.encode()).digest())

    @property
    def key(self) -> VerifierKey:
        return VerifierKey(self.name, self.type, bytes(self.signing.verify_key))

    def sign(self, message: bytes) -> bytes:
        return self.signing.sign(message).signature

    def signed(self, checkpoint: Checkpoint, at: int | None = None) -> SignedCheckpoint:
        made = self.key.signature(self.sign(self.key.to_be_signed(checkpoint.text, at)), at)
        return SignedCheckpoint(checkpoint, (made,))


LOG: Final = Signer(ORIGIN, SignatureType.ED25519)
WITNESSES: Final = tuple(Signer(f"witness.example/w{number}", SignatureType.COSIGNATURE) for number in (1, 2, 3))


def record(index: int) -> bytes:
    return b'{"event":"%d","what":"activation"}' % index


@dataclass
class Log:
    """A log in memory."""

    records: list[bytes] = field(default_factory=list)
    frontier: Frontier = field(default_factory=Frontier)
    tiles: dict[tuple[int, int], bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, size: int) -> "Log":
        log = cls()
        log.append([record(index) for index in range(size)])
        return log

    def append(self, records: Sequence[bytes]) -> None:
        grown = self.frontier.append(leaf_hashes(map(entry_of, records)))
        self.records += records
        self.frontier = grown.frontier
        for tile in grown.tiles:
            self.tiles[tile.id.level or 0, tile.id.index] = tile.hashes
        for edge, content in grown.frontier.partial:
            self.tiles[edge.level or 0, edge.index] = content

    @property
    def entries(self) -> list[bytes]:
        return list(map(entry_of, self.records))

    @property
    def reader(self) -> Tiles:
        return Tiles(self.tiles)

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        size = self.frontier.size if size is None else size
        return Checkpoint(ORIGIN, size, Frontier().append(leaf_hashes(self.entries[:size])).frontier.root)

    def signed(self, size: int | None = None, witnesses: Sequence[Signer] = ()) -> SignedCheckpoint:
        signed = LOG.signed(self.checkpoint(size))
        more = [one for witness in witnesses for one in witness.signed(signed.checkpoint, NOW).signatures]
        return SignedCheckpoint(signed.checkpoint, (*signed.signatures, *more))

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        return prove_consistency(old, new, self.reader)

    def evidence(self, index: int, witnesses: Sequence[Signer] = ()) -> Evidence:
        return Evidence(
            index, prove_inclusion(index, self.frontier.size, self.reader), self.signed(witnesses=witnesses)
        )

    def export(self, folder: Path, witnesses: Sequence[Signer] = (), *, events: bool = True) -> Path:
        files: dict[str, bytes] = {"checkpoint": bytes(self.signed(witnesses=witnesses))}
        entries = self.entries
        for tile in tiles_of(self.frontier.size, None):
            files[tile.path] = encode_entries(entries[tile.start : tile.start + tile.width])
        for (level, index), content in self.tiles.items():
            files[TileId(level, index, len(content) // 32).path] = content
        if events:
            files["events.ndjson"] = b"".join(one + b"\n" for one in self.records)
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder


def zipped(folder: Path, to: Path) -> Path:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return to
