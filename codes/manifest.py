"""Manifests: what a run made, file by file and chunk by chunk, signed by the order's key.

`manifest.json` is UTF-8 JSON, `manifest.sig` the 64-byte signature in hexadecimal and a line feed, over

    "fanxing/manifest/v1" 0x00 | SHA-256 of manifest.json

docs/exports.md describes the members.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from codes.orders import CodeOrder
from codes.runs import ExportRun, Part, RunSpec
from kit.clock import iso
from kit.errors import Conflict, Invalid, NotFound
from kit.files import PRIVATE_MODE, replacing
from offline_sdk.algorithms import SIGNATURE_BYTES, signature_is_right
from offline_sdk.cose import Signer

FORMAT = "fanxing-manifest-1"
MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.sig"
MANIFEST_BYTES_MAX = 256 << 20
_PREFIX = b"fanxing/manifest/v1\x00"
_READ_BYTES = 1 << 20


class ManifestMissing(NotFound):
    code = "ManifestMissing"


class ManifestInvalid(Invalid):
    code = "ManifestInvalid"


class FileAltered(Invalid):
    code = "FileAltered"


class FolderTaken(Conflict):
    code = "FolderTaken"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest whose signature was right."""

    content: dict[str, Any]

    @property
    def kid(self) -> int:
        return int(self.content["kid"])

    @property
    def codes(self) -> int:
        """How many codes there are in each form."""
        return int(self.content["codes"])

    @property
    def files(self) -> list[Part]:
        return [Part(**file) for file in self.content["files"]]


def to_be_signed(content: bytes) -> bytes:
    """What the order's key signs of a manifest."""
    return _PREFIX + hashlib.sha256(content).digest()


def build(
    order: CodeOrder, run: ExportRun, files: Sequence[Part], chunks: Sequence[Sequence[Part]], now: datetime
) -> bytes:
    """The manifest of a run whose files are complete; `chunks` holds the parts of each section, in order."""
    spec = RunSpec.from_text(run.spec)
    content = {
        "format": FORMAT,
        "run": str(run.run_id),
        "quantity": order.quantity,
        **_subject(order, spec),
        "codes": spec.items * len(spec.faces),
        "base_url": order.base_url,
        "kid": order.kid,
        "level": spec.layout.level,
        "begun_at": iso(run.created_at),
        "finished_at": iso(now),
        "files": [asdict(file) for file in files],
        "chunks": [
            {
                "face": section.face.name.lower(),
                "number": section.number,
                "ranges": section.ranges,
                "parts": [asdict(part) for part in parts],
            }
            for section, parts in zip(spec.sections(), chunks, strict=True)
        ],
    }
    return json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n"


def _subject(order: CodeOrder, spec: RunSpec) -> dict[str, Any]:
    """What a run makes, as its manifest tells it."""
    return {
        "gtin": order.gtin,
        "order": order.order_number,
        "faces": [face.name.lower() for face in spec.faces],
        "ranges": [list(part) for part in spec.ranges],
        "kinds": [kind.value for kind in spec.kinds],
    }


def require_own_folder(folder: Path, order: CodeOrder, spec: RunSpec) -> None:
    """Raises FolderTaken when a folder holds a finished export of something else.

    Files of two exports side by side would look like one, and codes that are in both would be printed twice.
    """
    try:
        held = json.loads((folder / MANIFEST_NAME).read_bytes())
        same = _subject(order, spec).items() <= held.items()
    except FileNotFoundError:
        return
    except (AttributeError, ValueError, RecursionError):
        same = False
    if not same:
        raise FolderTaken(
            f"{folder} holds another export", hint="Name a new folder with --out, or move that export away."
        )


def write(folder: Path, content: bytes, signature: bytes) -> None:
    """Put manifest and signature into a folder."""
    with replacing(folder / SIGNATURE_NAME, PRIVATE_MODE) as file:
        file.write(signature.hex().encode() + b"\n")
    with replacing(folder / MANIFEST_NAME, PRIVATE_MODE) as file:
        file.write(content)


def read(folder: Path, public_keys: Mapping[int, Signer]) -> Manifest:
    """The manifest of a folder; `public_keys` has the keys by their numbers, each with its algorithm.

    Raises ManifestMissing, and ManifestInvalid when the manifest is not what one of these keys signed.
    """
    try:
        content = (folder / MANIFEST_NAME).read_bytes()
        signature = bytes.fromhex((folder / SIGNATURE_NAME).read_text(encoding="ascii").strip())
    except FileNotFoundError as error:
        raise ManifestMissing(f"there is no {Path(error.filename).name} in {folder}") from None
    except (UnicodeDecodeError, ValueError):
        raise ManifestInvalid(f"{folder / SIGNATURE_NAME} is no signature") from None
    altered = ManifestInvalid(
        f"{folder / MANIFEST_NAME} is not what the order's key signed",
        hint="Ask for the files again, and keep these for whoever has to find out.",
    )
    try:
        document = json.loads(content) if len(content) <= MANIFEST_BYTES_MAX else {}
        kid = document["kid"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise altered from None
    if type(kid) is not int or len(signature) != SIGNATURE_BYTES or document.get("format") != FORMAT:
        raise altered
    if kid not in public_keys:
        raise ManifestInvalid(f"{folder / MANIFEST_NAME} is signed by key number {kid}, which is not trusted here")
    key = public_keys[kid]
    if not signature_is_right(key.algorithm, key.public, to_be_signed(content), signature):
        raise altered
    return Manifest(document)


def check_files(folder: Path, manifest: Manifest, advance: Callable[[int], None]) -> None:
    """Compare every file with the manifest; `advance` hears how many bytes were read. Raises FileAltered."""
    for file in manifest.files:
        digest, length = hashlib.sha256(), 0
        try:
            with (folder / file.path).open("rb") as content:
                while block := content.read(_READ_BYTES):
                    digest.update(block)
                    length += len(block)
                    advance(len(block))
        except FileNotFoundError:
            raise FileAltered(f"{file.path} is missing") from None
        if (length, digest.hexdigest()) != (file.bytes, file.sha256):
            raise FileAltered(f"{file.path} is not the file that the manifest speaks of")
