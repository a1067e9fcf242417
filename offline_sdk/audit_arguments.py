"""Audit arguments: what the programs that verify logs ask about keys and witnesses, and how they refuse."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from .transparency.checkpoint import Policy
from .transparency.note import KEY_CHARS_MAX, VerifierKey

EXIT_WHOLE: Final = 0
EXIT_ALTERED: Final = 1
EXIT_UNUSABLE: Final = 2


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Have a parser take --key, --witness and --threshold."""
    parser.add_argument("--key", metavar="KEY", required=True, help="the log's verifier key")
    parser.add_argument(
        "--witness", metavar="KEY", action="append", default=[], help="a witness's verifier key; may be repeated"
    )
    parser.add_argument(
        "--threshold", metavar="N", type=int, help="how many of the witnesses must have cosigned (default: all of them)"
    )


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments; argparse exits by itself on bad usage (status 2). The streams then show whatever a log says."""
    wanted = parser.parse_args(arguments)
    if wanted.threshold is not None and not 0 <= wanted.threshold <= len(wanted.witness):
        parser.error("--threshold is above the number of --witness")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A log's name must not stop the program on a terminal that cannot show it.
            stream.reconfigure(errors="backslashreplace")
    return wanted


def policy_of(wanted: argparse.Namespace) -> Policy:
    """The policy that --key, --witness and --threshold ask for. Raises LogMalformed, OSError."""
    witnesses = tuple(map(_key, wanted.witness))
    threshold = len(witnesses) if wanted.threshold is None else wanted.threshold
    return Policy(_key(wanted.key), witnesses, threshold)


def _key(text: str) -> VerifierKey:
    """The key of an argument: its text, or the file that holds it."""
    if "+" in text and not Path(text).is_file():
        return VerifierKey.read(text)
    return VerifierKey.read(read(Path(text), KEY_CHARS_MAX).decode("utf-8", "surrogateescape").strip())


def read(path: Path, bytes_max: int) -> bytes:
    """Read a file, or one byte more than is allowed of it, which its reader then refuses."""
    with path.open("rb") as file:
        return file.read(bytes_max + 1)


def moment(at: int) -> str:
    """A time in unix seconds as people read it."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def cosigners(witnesses: Sequence[tuple[VerifierKey, int]]) -> str:
    """The sentence on who cosigned."""
    told = ", ".join(f"{key.name} at {moment(at)}" for key, at in witnesses)
    return f"cosigned by {told}" if told else "cosigned by no witness that was asked for"


def unusable(reason: str) -> int:
    """Say why there is no outcome; the exit status."""
    print(f"fanxing-audit: {reason}", file=sys.stderr)
    return EXIT_UNUSABLE
