"""fanxing-audit evidence: check an evidence bundle, with no network."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .audit_arguments import EXIT_ALTERED, EXIT_WHOLE, add_policy, cosigners, moment, parsed, policy_of, unusable
from .errors import LogError
from .transparency.evidence_bundle import EvidenceBundle
from .transparency.evidence_check import Checked, check

COMMAND: Final = "evidence"

_EPILOG: Final = """\
FILE is the zip that a server gives under /v1/evidence/..., or `fanxing log evidence`. It is read where it lies.
KEY is a verifier key such as log.example.cn/fanxing+0123abcd+AQ..., or a file that holds one. Do not take the one out
of the bundle itself: who can forge a bundle can put another key into it.

exit status:
  0  every record is in the log that the key signs for, and every file is as the bundle's manifest says
  1  not so; the first fault is named
  2  bad usage, or the bundle or a key cannot be read; the reason is on stderr

With --json the outcome is one object with the keys whole, origin, size, root, witnesses, records, erased, pending,
unlogged, cut and finding; a finding has the keys fault, file, index, line and message. Leaves are counted from 0, lines
from 1. pending, unlogged and cut are what the bundle says of itself, signed by nobody.
"""


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments ask and return the exit status; argparse exits by itself on bad usage (status 2)."""
    wanted = parsed(_parser(), arguments)
    try:
        policy = policy_of(wanted)
        with EvidenceBundle(wanted.file) as bundle:
            outcome = check(bundle, policy)
    except BrokenPipeError:
        raise
    except OSError as error:
        return unusable(f"cannot read a file: {error}")
    except LogError as error:
        return unusable(f"{error.code}: {error.message}")
    print(json.dumps(_as_json(outcome), indent=1) if wanted.json else "\n".join(_sentences(outcome)))
    return EXIT_WHOLE if outcome.is_whole else EXIT_ALTERED


def _sentences(outcome: Checked) -> list[str]:
    head, finding = outcome.checkpoint, outcome.finding
    if finding is not None:
        return [f"{finding.fault.value.upper()}: {finding.message}"]
    assert head is not None  # a checkpoint that is not trusted is a finding
    records = f"{outcome.records:,} records"
    if outcome.erased:
        records += f" ({outcome.erased:,} of them erased, which only the entry is left of)"
    told = [
        f"WHOLE: {records} of {head.origin}, under {head.size:,} leaves, root {head.root.hex()}",
        cosigners(outcome.witnesses),
    ]
    manifest = outcome.manifest
    if manifest.pending or manifest.unlogged:
        told.append(
            f"the bundle says that {len(manifest.pending):,} records more were not under a checkpoint yet, and "
            f"{len(manifest.unlogged):,} were never logged"
        )
    if manifest.is_cut:
        told.append("the bundle says that there was more than it holds")
    return told


def _as_json(outcome: Checked) -> dict[str, Any]:
    head, manifest = outcome.checkpoint, outcome.manifest
    return {
        "whole": outcome.is_whole,
        "origin": None if head is None else head.origin,
        "size": None if head is None else head.size,
        "root": None if head is None else head.root.hex(),
        "witnesses": [{"name": key.name, "at": moment(at)} for key, at in outcome.witnesses],
        "records": outcome.records,
        "erased": outcome.erased,
        "pending": len(manifest.pending),
        "unlogged": len(manifest.unlogged),
        "cut": manifest.is_cut,
        "finding": None if outcome.finding is None else outcome.finding.as_json(),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"fanxing-audit {COMMAND}",
        description="Check an evidence bundle: records of a log and what proves them, with no network.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the bundle, a zip")
    add_policy(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of sentences")
    return parser
