"""fanxing-verify: judge code texts by a trust file or a device's trust store, with no network."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

from . import program
from .cose import TRUST_FILE_BYTES_MAX
from .errors import TrustError, VerifyError
from .root import read_pin
from .trust_store import TrustStore, read_trust
from .verifier import Verdict, Verifier

EXIT_GENUINE: Final = 0
EXIT_REFUSED: Final = 1
EXIT_UNUSABLE: Final = 2

LINE_BYTES_MAX: Final = 4096
"""What is kept of one line of input; no code text is nearly as long."""
BLOCK_BYTES: Final = 64 * 1024
ROOT_FILE_BYTES_MAX: Final = 4096

_BLANK: Final = "\0"  # no issuer's name holds it
_FRAMES_REMEMBERED: Final = 1024
_PROFILE_NAMES: Final = {1: "outer", 2: "inner"}
_WHAT_IT_MEANS: Final = (
    "Genuine: issued by the named issuer and not revoked as of the trust bundle's date. A signature stops forging, "
    "never copying:\na copied code is as genuine as its original, and nothing is said of what is inside."
)
_EPILOG: Final = """\
With --state the program remembers the newest root, the newest bundle and the greatest time that it has seen, and so
refuses what is older; --trust remembers nothing.

exit status:
  0  every text is genuine (also when there was none)
  1  at least one text is refused, or a person is to decide (ASK)
  2  bad usage, or the trust file, store or root cannot be read or trusted; the reason is on stderr

With --json each text gives one line, an object with the keys text, verdict, error, gtin, serial, profile, kid, issuer,
bundle_seq, bundle_state and clock_suspect. Input that is not UTF-8 is shown with \\x escapes.
"""


def run() -> NoReturn:
    """Run the program on the process's own arguments and streams, and exit."""
    program.run(main)


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments ask and return the exit status; argparse exits by itself on bad usage (status 2)."""
    parser = _parser()
    wanted = parser.parse_args(arguments)
    if wanted.show and wanted.texts:
        parser.error("--show prints the bundle and takes no TEXT")
    if wanted.update is not None and wanted.state is None:
        parser.error("--update goes into a store and needs --state")
    if sys.stdin is None and not wanted.texts and not wanted.show:
        parser.error("there is no stdin to read, and no TEXT")
    if hasattr(sys.stdout, "reconfigure"):
        # An issuer's name must not stop the program on a terminal that cannot show it.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        pin = read_pin(_read(wanted.root, ROOT_FILE_BYTES_MAX))
        if wanted.state is None:
            trust = read_trust(_read(wanted.trust, TRUST_FILE_BYTES_MAX), pin)
            return _work(wanted, Verifier(trust.held_bundle, root_expires=trust.held_root.expires), None)
        store = TrustStore(wanted.state, pin)
        if wanted.update is None:
            store.open()
        else:
            _update(store, _read(wanted.update, TRUST_FILE_BYTES_MAX))
        return _work(wanted, store.verifier(), store)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _unusable(f"cannot read or write a file: {error}")
    except VerifyError as error:
        return _unusable(f"{error.code}: {error.message}")


def blocks(stream: BinaryIO) -> Iterator[list[str]]:
    """Yield the lines of a stream without their LF or CRLF, as many at a time as were waiting to be read.

    At most LINE_BYTES_MAX bytes of a line are kept: what is left is still longer than any code text, so it is refused.
    Bytes that are not UTF-8 become lone surrogates, which no code text holds.
    """
    kept = b""
    while block := stream.read1(BLOCK_BYTES):  # type: ignore[attr-defined] # what has it is what stdin and files are
        *whole, kept = (kept + block).split(b"\n")
        # Room for the CR of a line of the greatest length, and for a byte that tells that it is longer.
        kept = kept[: LINE_BYTES_MAX + 2]
        # Only a line's own end is taken away: another CR is a character of the text, and refuses it.
        if whole:
            yield [_decoded(line.removesuffix(b"\r")) for line in whole]
    if kept:
        yield [_decoded(kept)]


def _decoded(line: bytes) -> str:
    return line[:LINE_BYTES_MAX].decode("utf-8", "surrogateescape")


def _update(store: TrustStore, content: bytes) -> None:
    try:
        store.open()
    except TrustError as error:
        # The file that is given may repair the cache; if it does not, it says why.
        print(f"fanxing-verify: the store is damaged: {error.code}: {error.message}", file=sys.stderr)
    store.update(content, datetime.now(UTC))


def _work(wanted: argparse.Namespace, verifier: Verifier, store: TrustStore | None) -> int:
    if wanted.show:
        print(json.dumps(verifier.bundle.as_json(), indent=2))
        return EXIT_GENUINE
    status = EXIT_GENUINE
    line = _json_line if wanted.json else _human_line
    for texts in [wanted.texts] if wanted.texts else blocks(sys.stdin.buffer):
        verdicts = [verifier.check(text) for text in texts]
        if not all(verdict.is_genuine for verdict in verdicts):
            status = EXIT_REFUSED
        sys.stdout.write("".join(map(line, texts, verdicts)))
        # A hand scanner types one line into stdin and waits for its answer; of a long file many lines are waiting.
        sys.stdout.flush()
        if store is not None:
            store.remember(datetime.now(UTC))
    if not wanted.json:
        print(_WHAT_IT_MEANS)
    return status


def _json_line(text: str, verdict: Verdict) -> str:
    if verdict.serial is None:  # the text is malformed, so it may hold anything
        return json.dumps({"text": _showable(text), **verdict.as_json()}) + "\n"
    # A text in canonical form needs no escapes, and of many lines all but text and serial are alike: to encode each
    # anew costs a tenth of the time of its check.
    head, middle, tail = _frame(verdict[:2] + verdict[3:4] + verdict[5:])
    return f'{head}"{text}"{middle}"{verdict.serial}"{tail}'


@lru_cache(maxsize=_FRAMES_REMEMBERED)
def _frame(fields: tuple[Any, ...]) -> tuple[str, str, str]:
    """What a line has before, between and after its text and its serial; the fields are the others of a verdict."""
    verdict, error, gtin, *others = fields
    line = json.dumps({"text": _BLANK, **Verdict(verdict, error, "", gtin, _BLANK, *others).as_json()}) + "\n"
    head, middle, tail = line.split(json.dumps(_BLANK))
    return head, middle, tail


def _human_line(_text: str, verdict: Verdict) -> str:
    """Say the verdict in one line that leaves out the text: an inner code is a secret."""
    words = [verdict.verdict.upper() if verdict.error is None else f"{verdict.verdict.upper()} {verdict.error}"]
    if verdict.profile is not None:
        words.append(f"GTIN {verdict.gtin} serial {verdict.serial} ({_PROFILE_NAMES[verdict.profile]} code)")
    if verdict.issuer is not None:
        words.append(f"issuer {verdict.issuer}")
    words.append(f"bundle {verdict.bundle_seq} ({verdict.bundle_state.value})")
    if verdict.clock_suspect:
        words.append("clock suspect")
    return f"{', '.join(words)}: {verdict.message}\n"


def _showable(text: str) -> str:
    """Turn the lone surrogates that stand for undecodable bytes into escapes: not every JSON reader takes them."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read(path: Path, bytes_max: int) -> bytes:
    """Read a file, or one byte more than is allowed of it, which its reader then refuses."""
    with path.open("rb") as file:
        return file.read(bytes_max + 1)


def _unusable(reason: str) -> int:
    print(f"fanxing-verify: {reason}", file=sys.stderr)
    return EXIT_UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fanxing-verify",
        description="Judge Fanxing code texts by a trust bundle, with no network.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--root", metavar="FILE", type=Path, required=True, help="the pin of the root: one line of 64 hex digits"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--trust", metavar="FILE", type=Path, help="the trust file: root documents and a bundle")
    source.add_argument(
        "--state", metavar="FOLDER", type=Path, help="this device's trust store; made when it is not there"
    )
    parser.add_argument("--update", metavar="FILE", type=Path, help="a trust file to take into the store first")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of sentences")
    parser.add_argument("--show", action="store_true", help="print what the bundle holds as JSON, and judge nothing")
    parser.add_argument(
        "texts",
        metavar="TEXT",
        nargs="*",
        help="a code text as scanned; without any, one text a line is read from stdin",
    )
    return parser
