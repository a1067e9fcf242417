"""Transparency: the formats and proofs of a log that nobody can rewrite unseen, as docs/transparency-log.md says.

The tree is that of RFC 9162, everything around it is as C2SP says: tlog-tiles, signed-note, tlog-checkpoint,
tlog-cosignature, tlog-witness and tlog-proof. Nothing here reads a clock or a private key; `export` alone reads files.
"""

from .checkpoint import Checkpoint, Cosigned, Policy, SignedCheckpoint
from .commitment import Opening, commitment_of, committed_entry
from .evidence import Evidence
from .frontier import Frontier, Grown, Tile
from .note import Note, NoteSignature, SignatureType, VerifierKey, read_signature_lines
from .tiles import TileId, Tiles, decode_entries, encode_entries, entry_of, partial_tiles, tiles_holding, tiles_of
from .tree import (
    HashReader,
    Subtree,
    consistency_path,
    inclusion_path,
    leaf_hash,
    leaf_hashes,
    prove_consistency,
    prove_inclusion,
    root,
    subtrees_of,
    verify_consistency,
    verify_inclusion,
)
from .witness import AddCheckpoint, Answer, Head, Witness

__all__ = [
    "AddCheckpoint",
    "Answer",
    "Checkpoint",
    "Cosigned",
    "Evidence",
    "Frontier",
    "Grown",
    "HashReader",
    "Head",
    "Note",
    "NoteSignature",
    "Opening",
    "Policy",
    "SignatureType",
    "SignedCheckpoint",
    "Subtree",
    "Tile",
    "TileId",
    "Tiles",
    "VerifierKey",
    "Witness",
    "commitment_of",
    "committed_entry",
    "consistency_path",
    "decode_entries",
    "encode_entries",
    "entry_of",
    "inclusion_path",
    "leaf_hash",
    "leaf_hashes",
    "partial_tiles",
    "prove_consistency",
    "prove_inclusion",
    "read_signature_lines",
    "root",
    "subtrees_of",
    "tiles_holding",
    "tiles_of",
    "verify_consistency",
    "verify_inclusion",
]
