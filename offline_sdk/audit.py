"""fanxing-audit: verify a whole exported history of a transparency log, with no network."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO

from . import evidence_audit, program
from .audit_arguments import EXIT_ALTERED, EXIT_WHOLE, add_policy, cosigners, moment, parsed, policy_of, read, unusable
from .errors import LogError
from .transparency.checkpoint import Policy, SignedCheckpoint
from .transparency.export import CHECKPOINT_FILE, Export
from .transparency.history import Audit, audit
from .transparency.note import NOTE_BYTES_MAX

BAR_CHARS: Final = 32
TELL_EVERY_S: Final = 0.2
TELL_MACHINES_EVERY_S: Final = 1.0

_EPILOG: Final = """\
EXPORT is a folder or a zip with the files checkpoint, tile/... and tile/entries/... as the log serves them (C2SP
tlog-tiles), and events.ndjson with each leaf's record, one a line, where the log gives it.
KEY is a verifier key such as log.example.cn/fanxing+0123abcd+AQ..., or a file that holds one.

`fanxing-audit evidence FILE.zip --key KEY` checks an evidence bundle instead: some records, and what proves them. See
`fanxing-audit evidence --help`. (A folder that is named evidence is written ./evidence.)

exit status:
  0  all entries, records and tiles are as the log signed them
  1  something was altered, removed, put in or not signed; the first leaf that it touches is named
  2  bad usage, or the export or a key cannot be read; the reason is on stderr

With --json the outcome is one object with the keys whole, origin, size, root, witnesses, entries, events, erased and
findings; a finding has the keys change, index, index_max, count, file, offset and message. Leaves are counted from 0.
How far the work is goes to stderr, objects with the keys done, total, rate and remaining_s.
"""


def run() -> NoReturn:
    """Run the program on the process's own arguments and streams, and exit."""
    program.run(main)


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments ask and return the exit status; argparse exits by itself on bad usage (status 2)."""
    if arguments and arguments[0] == evidence_audit.COMMAND:
        return evidence_audit.main(arguments[1:])
    wanted = parsed(_parser(), arguments)
    try:
        policy = policy_of(wanted)
        since = [SignedCheckpoint.read(read(path, NOTE_BYTES_MAX)) for path in wanted.since]
        with Export(wanted.export) as export:
            outcome = _audit(export, policy, since, as_json=wanted.json)
    except BrokenPipeError:
        raise
    except OSError as error:
        return unusable(f"cannot read a file: {error}")
    except LogError as error:
        return unusable(f"{error.code}: {error.message}")
    if wanted.json:
        print(json.dumps(_as_json(outcome), indent=1))
    else:
        print("\n".join(_sentences(outcome)))
    return EXIT_WHOLE if outcome.is_whole else EXIT_ALTERED


def _audit(export: Export, policy: Policy, since: Sequence[SignedCheckpoint], *, as_json: bool) -> Audit:
    content = export.checkpoint()
    if content is None:
        raise FileNotFoundError(f"the export has no file {CHECKPOINT_FILE!r}")
    signed = SignedCheckpoint.read(content)
    with _Progress(signed.checkpoint.size, sys.stderr, as_json=as_json) as progress:
        return audit(export, signed, policy, since, progress.advance)


def _sentences(outcome: Audit) -> list[str]:
    head = outcome.checkpoint
    if not outcome.is_whole:
        return [f"{finding.change.value.upper()}: {finding.message}" for finding in outcome.findings]
    events = "no records beside them" if outcome.events is None else f"{outcome.events:,} records"
    if outcome.erased:
        events += f" ({outcome.erased:,} of them erased, which only the entry is left of)"
    return [
        f"WHOLE: {outcome.entries:,} entries of {head.origin}, {events}, root {head.root.hex()}",
        cosigners(outcome.witnesses),
    ]


def _as_json(outcome: Audit) -> dict[str, Any]:
    head = outcome.checkpoint
    return {
        "whole": outcome.is_whole,
        "origin": head.origin,
        "size": head.size,
        "root": head.root.hex(),
        "witnesses": [{"name": key.name, "at": moment(at)} for key, at in outcome.witnesses],
        "entries": outcome.entries,
        "events": outcome.events,
        "erased": outcome.erased,
        "findings": [finding.as_json() for finding in outcome.findings],
    }


class _Progress:
    """How far the work is: a bar on a terminal, for machines a line of JSON now and then, else nothing."""

    def __init__(self, total: int, stream: TextIO | None, *, as_json: bool) -> None:
        self._total, self._stream, self._as_json = total, stream, as_json
        self._shown = stream is not None and (as_json or stream.isatty())
        self._done, self._began = 0, time.monotonic()
        self._told = self._began

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_error: object) -> None:
        if self._shown and self._told > self._began and not self._as_json:
            print(file=self._stream)

    def advance(self, count: int) -> None:
        """Hear how many more leaves were read."""
        self._done += count
        now = time.monotonic()
        every = TELL_MACHINES_EVERY_S if self._as_json else TELL_EVERY_S
        if self._shown and (now - self._told >= every or self._done >= self._total):
            self._told = now
            self._tell(self._done / max(now - self._began, 1e-9))

    def _tell(self, rate: float) -> None:
        remaining_s = (self._total - self._done) / rate
        if self._as_json:
            told = {"done": self._done, "total": self._total, "rate": round(rate), "remaining_s": round(remaining_s, 1)}
            print(json.dumps(told), file=self._stream, flush=True)
            return
        bar = "#" * (BAR_CHARS * self._done // self._total)
        line = (
            f"Auditing [{bar:<{BAR_CHARS}}] {self._done:,}/{self._total:,} entries, {rate:,.0f}/s, {remaining_s:.0f} s"
        )
        print(f"\r{line:<100}", end="", file=self._stream, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fanxing-audit",
        description="Verify a whole exported history of a transparency log, with no network.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("export", metavar="EXPORT", type=Path, help="the export: a folder or a zip")
    add_policy(parser)
    parser.add_argument(
        "--since",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="an older signed checkpoint that the history must continue; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of sentences")
    return parser


if __name__ == "__main__":
    run()
