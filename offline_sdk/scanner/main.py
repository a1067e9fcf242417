"""fanxing-scanner: judge what a shop counter's hand scanner reads, with or without a network."""

import argparse
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from .. import program
from ..errors import DeviceError, EnrolmentInvalid, NotEnrolled, SyncFailed, VerifyError
from ..verifier import Action, Policy
from .home import Home, HomeBusy
from .trust import POLICY
from .words import Language

if TYPE_CHECKING:
    from .shift import Wishes

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_UNUSABLE: Final = 2
EXIT_BUSY: Final = 3
EXIT_NOT_ENROLLED: Final = 4
BAUD_MIN: Final = 300
BAUD_MAX: Final = 4_000_000
_BAUD_DEFAULT: Final = 9_600

_EPILOG: Final = """\
exit status:
  0  done; of `run`: the input ended, or SIGTERM, SIGINT or SIGHUP came
  1  the server was not reached or refused, or the trust file was refused; try again later
  2  bad usage, or the folder, the device or the journal cannot be used
  3  another fanxing-scanner works in the folder
  4  the scanner is not enrolled

The folder is --home, else FANXING_SCANNER_HOME, else fanxing-scanner in the XDG data folder.
"""
_RUN_EPILOG: Final = """\
With --json each scan gives one line, an object with the keys number, at, verdict, error, message, gtin, serial,
profile, kid, issuer, bundle_seq, bundle_state, clock_suspect and seen. A scan that could not be recorded has no number
and counts as refused. Notices go to stderr, objects with the keys event and message.
"""


def run() -> NoReturn:
    """Run the program on the process's own arguments and streams, and exit."""
    os.umask(0o077)  # what the scanner writes is for its user alone
    program.run(main)


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments ask and return the exit status; argparse exits by itself on bad usage (status 2)."""
    parser = _parser()
    wanted = parser.parse_args(arguments)
    if sys.stdin is None or sys.stdout is None:
        parser.error("there is no standard input or no standard output")
    # A path or an issuer's name must not stop the program on a terminal that cannot show it.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    home = Home.default({**os.environ, **({"FANXING_SCANNER_HOME": wanted.home} if wanted.home else {})})
    command: Callable[[Home, argparse.Namespace], int] = wanted.command or _run
    try:
        return command(home, wanted)
    except (DeviceError, VerifyError) as error:
        return _complain(error, as_json=wanted.json)
    except ImportError as error:
        print(f'fanxing-scanner: {error.name} is not installed; install the extra "scanner"', file=sys.stderr)
        return EXIT_UNUSABLE
    except BrokenPipeError:
        raise
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print(f"fanxing-scanner: {name}{error.strerror or error}", file=sys.stderr)
        return EXIT_UNUSABLE


def _complain(error: DeviceError | VerifyError, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": {"code": error.code, "message": error.message}}), file=sys.stderr)
    else:
        print(f"fanxing-scanner: {error.code}: {error.message}", file=sys.stderr)
    if isinstance(error, HomeBusy):
        return EXIT_BUSY
    if isinstance(error, NotEnrolled):
        return EXIT_NOT_ENROLLED
    failed = isinstance(error, SyncFailed | VerifyError) or error.code in ("DeviceRevoked", "PinMismatch")
    return EXIT_FAILED if failed else EXIT_UNUSABLE


def _run(home: Home, wanted: argparse.Namespace) -> int:
    from .shift import work  # noqa: PLC0415 - each command imports what it needs: a counter waits for the start

    work(home, _wishes(wanted))
    return EXIT_DONE


def _wishes(wanted: argparse.Namespace) -> "Wishes":
    from .shift import Wishes  # noqa: PLC0415

    policy = Policy(
        on_stale=Action(wanted.on_stale),
        on_expired=Action(wanted.on_expired),
        on_clock_suspect=Action(wanted.on_clock),
    )
    language = Language(wanted.lang) if wanted.lang else Language.of(os.environ)
    return Wishes(wanted.json, wanted.plain, wanted.sound, language, wanted.serial, wanted.baud, policy)


def _enrol(home: Home, wanted: argparse.Namespace) -> int:
    from ..device import EnrolmentText  # noqa: PLC0415
    from . import server  # noqa: PLC0415

    typed = (wanted.server, wanted.code)
    if wanted.text is not None and any((*typed, wanted.pin)):
        raise EnrolmentInvalid("give either the text of the QR or --server and --code, not both")
    if wanted.text is not None:
        text = EnrolmentText.read(wanted.text)
    elif all(typed):
        text = EnrolmentText.typed(wanted.server, wanted.code, wanted.pin)
    elif any((*typed, wanted.pin)):
        raise EnrolmentInvalid("--server and --code belong together; give both, and --pin when you have it")
    else:
        if sys.stdin.isatty():
            print("Scan the enrolment QR now, or type its text:", file=sys.stderr)
        text = server.read_enrolment(sys.stdin)
    done = server.enrol_device(home, text, wanted.name or socket.gethostname())
    at = f"{done['server']} as {done['name']}, device {done['device_id']}"
    trust = f"trust list {done['bundle_seq']}" if done["bundle_seq"] else "no trust list yet"
    _report(done, [f"Enrolled at {at}; {trust}.", *_problem(done)], as_json=wanted.json)
    return EXIT_DONE


def _sync(home: Home, wanted: argparse.Namespace) -> int:
    from . import server  # noqa: PLC0415

    done = server.synced(home, None if wanted.json else sys.stderr)
    counts = f"{done['accepted']} accepted, {done['duplicate']} known before, {done['refused']} refused"
    refusals = [f"  refused as {code}: {times}" for code, times in sorted(done["refusals"].items())]
    lines = [f"Synced: {counts}; {done['waiting']} wait. Trust list {done['bundle_seq'] or 'none'}.", *refusals]
    _report(done, [*lines, *_problem(done)], as_json=wanted.json)
    return EXIT_FAILED if done["problem"] else EXIT_DONE


def _update(home: Home, wanted: argparse.Namespace) -> int:
    from . import commands  # noqa: PLC0415

    done = commands.updated(home, wanted.file)
    lists = (
        f"trust list {done['old_seq']} -> {done['new_seq']}, root {done['old_root_version']} -> {done['root_version']}"
    )
    _report(done, [f"Updated: {lists}." if done["changed"] else f"Nothing new: {lists}."], as_json=wanted.json)
    return EXIT_DONE


def _status(home: Home, wanted: argparse.Namespace) -> int:
    from . import commands  # noqa: PLC0415

    done = commands.status(home)
    _report(done, _flat(done), as_json=wanted.json)
    return EXIT_DONE


def _clock(home: Home, wanted: argparse.Namespace) -> int:
    from . import commands  # noqa: PLC0415

    if wanted.action == "correct" and wanted.yes:
        done = commands.correct_clock(home)
        lines = [f"The clock of this device, {done['clock']}, is believed again; noted in {home.folder}."]
    else:
        done = commands.clock(home)
        lines = _flat(done)
        if wanted.action == "correct":
            done, lines = (
                {**done, "dry_run": True},
                [*lines, "Nothing was changed; --yes believes this device's clock."],
            )
    _report(done, lines, as_json=wanted.json)
    return EXIT_DONE


def _export(home: Home, wanted: argparse.Namespace) -> int:
    from . import commands  # noqa: PLC0415

    done = commands.export(home, wanted.file)
    if done["file"] is not None:
        _report(done, [f"Wrote {done['records']} scans to {done['file']}."], as_json=wanted.json)
    return EXIT_DONE


def _report(done: dict[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    print(json.dumps(done) if as_json else "\n".join(lines), flush=True)


def _problem(done: dict[str, Any]) -> list[str]:
    problem = done["problem"]
    return [] if problem is None else [f"But {problem['code']}: {problem['message']}"]


def _flat(content: dict[str, Any], prefix: str = "") -> list[str]:
    """Nested fields as lines of a dotted name and a value."""
    lines = []
    for name, value in content.items():
        if isinstance(value, dict):
            lines += _flat(value, f"{prefix}{name}.")
        else:
            lines.append(f"{prefix}{name}: {'-' if value is None else value}")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fanxing-scanner",
        description="Judge what a shop counter's hand scanner reads, with or without a network.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = _common(argparse.SUPPRESS)
    _common(None, parser)
    _add_run_options(parser, is_default=True)
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(metavar="COMMAND")

    run_parser = commands.add_parser(
        "run", parents=[common], help="judge scans (default)", epilog=_RUN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _add_run_options(run_parser)
    run_parser.set_defaults(command=_run)

    enrol = commands.add_parser("enrol", parents=[common], help="enrol this scanner at a server")
    enrol.add_argument("text", metavar="TEXT", nargs="?", help="the enrolment QR's text; without it, it is read")
    enrol.add_argument("--server", metavar="URL", help="the server, when code and server are typed")
    enrol.add_argument("--code", help="the enrolment code, 12 letters and digits")
    enrol.add_argument(
        "--pin", metavar="HEX", help="the trust root's pin, 64 hex digits; without it the server's is taken"
    )
    enrol.add_argument("--name", help="what this scanner is called in lists (default: the host's name)")
    enrol.set_defaults(command=_enrol)

    sync = commands.add_parser("sync", parents=[common], help="bring all scans to the server, and fetch the trust list")
    sync.set_defaults(command=_sync)

    update = commands.add_parser("update", parents=[common], help="take a trust file from a USB stick or a path")
    update.add_argument("file", metavar="FILE", help="the file, a folder with trust.cbor, or - for standard input")
    update.set_defaults(command=_update)

    status = commands.add_parser("status", parents=[common], help="how this scanner stands")
    status.set_defaults(command=_status)

    clock = commands.add_parser("clock", parents=[common], help="this device's clock, and the time that it is at least")
    clock.add_argument(
        "action", nargs="?", choices=("show", "correct"), default="show", help="correct: believe it again"
    )
    clock.add_argument("--yes", action="store_true", help="do it, and note that it was done")
    clock.set_defaults(command=_clock)

    export = commands.add_parser("export", parents=[common], help="write the journal as NDJSON")
    export.add_argument("file", metavar="FILE", help="a new file, or - for standard output")
    export.set_defaults(command=_export)
    return parser


def _common(default: Any, parser: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """The options of every command, before it or after it."""
    parser = parser or argparse.ArgumentParser(add_help=False)
    parser.add_argument("--home", metavar="FOLDER", default=default, help="this scanner's folder")
    parser.add_argument(
        "--json",
        action="store_true",
        default=False if default is None else default,
        help="print JSON instead of sentences",
    )
    return parser


def _add_run_options(parser: argparse.ArgumentParser, *, is_default: bool = False) -> None:
    """The options of `run`, which may also be given without its name."""

    def default(value: Any) -> Any:
        return value if is_default else argparse.SUPPRESS

    parser.add_argument("--serial", metavar="PORT", default=default(None), help="read a serial port, like /dev/ttyUSB0")
    parser.add_argument(
        "--baud", type=_baud, default=default(_BAUD_DEFAULT), help=f"its speed (default: {_BAUD_DEFAULT})"
    )
    parser.add_argument("--plain", action="store_true", default=default(False), help="one line a scan, no screen")
    parser.add_argument("--sound", action="store_true", default=default(False), help="play tones instead of the bell")
    parser.add_argument("--lang", choices=list(Language), default=default(None), help="the language (default: LANG's)")
    actions = [action.value for action in Action]
    for option, action, what in (
        ("--on-stale", POLICY.on_stale, "the trust list is old"),
        ("--on-expired", POLICY.on_expired, "it has expired"),
        ("--on-clock", POLICY.on_clock_suspect, "the clock is suspect"),
    ):
        parser.add_argument(
            option, choices=actions, default=default(action.value), help=f"when {what} (default: {action.value})"
        )


def _baud(text: str) -> int:
    baud = int(text) if text.isascii() and text.isdecimal() else 0
    if not BAUD_MIN <= baud <= BAUD_MAX:
        raise argparse.ArgumentTypeError(f"a speed is {BAUD_MIN} to {BAUD_MAX} baud")
    return baud
