"""fanxing-verify: judge code texts by a trust bundle, with no network."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

from .bundle import DOCUMENT_BYTES_MAX, Bundle, read_root
from .errors import VerifyError
from .verifier import Verdict, Verifier

EXIT_GENUINE: Final = 0
EXIT_REFUSED: Final = 1
EXIT_UNUSABLE: Final = 2
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell reports it
EXIT_BROKEN_PIPE: Final = 141  # 128 + SIGPIPE, as a shell reports it

LINE_BYTES_MAX: Final = 4096
"""What is kept of one line of input; no code text is nearly as long."""
ROOT_FILE_BYTES_MAX: Final = 4096

_PROFILE_NAMES: Final = {1: "outer", 2: "inner"}
_WHAT_IT_MEANS: Final = (
    "Genuine: issued by the named issuer and not revoked as of the trust bundle's date. A signature stops forging, "
    "never copying:\na copied code is as genuine as its original, and nothing is said of what is inside."
)
_EPILOG: Final = """\
exit status:
  0  every text is genuine (also when there was none)
  1  at least one text is refused
  2  bad usage, or the bundle or root cannot be read or trusted; the reason is on stderr

With --json each text gives one line, an object with the keys text, verdict, error, gtin, serial, profile, kid, issuer,
bundle_seq and bundle_state. Input that is not UTF-8 is shown with \\x escapes.
"""


def run() -> NoReturn:
    """Run the program on the process's own arguments and streams, and exit."""
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone. Python flushes stdout once more at exit and would complain about that too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    sys.exit(status)


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments ask and return the exit status; argparse exits by itself on bad usage (status 2)."""
    parser = _parser()
    wanted = parser.parse_args(arguments)
    if wanted.show and wanted.texts:
        parser.error("--show prints the bundle and takes no TEXT")
    if sys.stdin is None and not wanted.texts and not wanted.show:
        parser.error("there is no stdin to read, and no TEXT")
    if hasattr(sys.stdout, "reconfigure"):
        # An issuer's name must not stop the program on a terminal that cannot show it.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        root = read_root(_read(wanted.root, ROOT_FILE_BYTES_MAX))
        bundle = Bundle.load(_read(wanted.bundle, DOCUMENT_BYTES_MAX), root)
    except OSError as error:
        return _unusable(f"cannot read the bundle or the root: {error}")
    except VerifyError as error:
        return _unusable(f"{error.code}: {error.message}")
    if wanted.show:
        print(json.dumps(bundle.as_json(), indent=2))
        return EXIT_GENUINE
    texts = wanted.texts or lines(sys.stdin.buffer)
    return _judge(Verifier(bundle), texts, as_json=wanted.json)


def lines(stream: BinaryIO) -> Iterator[str]:
    """Yield the lines of a stream without their LF or CRLF, never holding more than LINE_BYTES_MAX bytes of one.

    The rest of a longer line is dropped: what is left is still longer than any code text, so it is refused. Bytes that
    are not UTF-8 become lone surrogates, which no code text holds.
    """
    while line := stream.readline(LINE_BYTES_MAX):
        rest = line
        while not rest.endswith(b"\n") and (rest := stream.readline(LINE_BYTES_MAX)):
            pass
        # Only a line's own end is taken away: a lone CR is a character of the text, and refuses it.
        text = line.removesuffix(b"\r\n") if line.endswith(b"\r\n") else line.removesuffix(b"\n")
        yield text.decode("utf-8", "surrogateescape")


def _judge(verifier: Verifier, texts: Iterable[str], *, as_json: bool) -> int:
    status = EXIT_GENUINE
    for text in texts:
        verdict = verifier.check(text)
        if not verdict.is_genuine:
            status = EXIT_REFUSED
        # Flushed line by line: a hand scanner types into stdin and waits for its answer.
        print(_json_line(text, verdict) if as_json else _human_line(verdict), flush=True)
    if not as_json:
        print(_WHAT_IT_MEANS)
    return status


def _json_line(text: str, verdict: Verdict) -> str:
    return json.dumps({"text": _showable(text), **verdict.as_json()})


def _human_line(verdict: Verdict) -> str:
    """Say the verdict in one line that leaves out the text: an inner code is a secret."""
    words = [verdict.verdict.upper() if verdict.error is None else f"REFUSED {verdict.error}"]
    if verdict.profile is not None:
        words.append(f"GTIN {verdict.gtin} serial {verdict.serial} ({_PROFILE_NAMES[verdict.profile]} code)")
    if verdict.issuer is not None:
        words.append(f"issuer {verdict.issuer}")
    words.append(f"bundle {verdict.bundle_seq} ({verdict.bundle_state.value})")
    return f"{', '.join(words)}: {verdict.message}"


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
    parser.add_argument("--bundle", metavar="FILE", type=Path, required=True, help="the trust bundle")
    parser.add_argument(
        "--root", metavar="FILE", type=Path, required=True, help="the root's public key: one line of 64 hex digits"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of sentences")
    parser.add_argument("--show", action="store_true", help="print what the bundle holds as JSON, and judge nothing")
    parser.add_argument(
        "texts",
        metavar="TEXT",
        nargs="*",
        help="a code text as scanned; without any, one text a line is read from stdin",
    )
    return parser
