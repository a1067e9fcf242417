"""A shop with keys, trust files and code texts, and the scanner program as a process, for its tests."""

import io
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from nacl.signing import SigningKey

from offline_sdk import Algorithm, Bundle, BundleKey, DocumentType, Signer, seal, to_be_signed
from offline_sdk.code_text import encode_message, encode_text
from offline_sdk.device import STATE_FILE
from offline_sdk.gtin import check_digit
from offline_sdk.revocation import Revocations
from offline_sdk.root import Root
from offline_sdk.scanner.home import Home
from offline_sdk.scanner.main import main

ROOT_FOLDER = Path(__file__).parents[3]
DAY_S = 86_400
KID = 7
GTIN = "0950600000013" + check_digit("0950600000013")
ISSUER = "Corner Dairy"
DEADLINE_S = 60.0
COMMAND = (sys.executable, "-m", "offline_sdk.scanner")


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Poll till the condition is true, and return what it gave."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {DEADLINE_S} s for {what}")


def plug_in(folder: Path) -> int:
    """Make ttyUSB0 in the folder a link to a new pseudo-terminal, as udev does, and return the hand scanner's end."""
    hand, adapter = pty.openpty()
    (folder / "ttyUSB0").unlink(missing_ok=True)
    (folder / "ttyUSB0").symlink_to(os.ttyname(adapter))
    os.close(adapter)
    return hand


class Program:
    """`fanxing-scanner` as a process, on pipes."""

    def __init__(self, home: Path, *arguments: str, command: Sequence[str] = COMMAND, **variables: str) -> None:
        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT_FOLDER,
            env=environment(home, **variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def type(self, *texts: str, end: str = "\n") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(text + end for text in texts))
        self.process.stdin.flush()

    def line(self) -> str:
        """The next line of standard output, empty at its end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def scan(self, text: str) -> dict[str, Any]:
        """What is shown of a text, as JSON."""
        self.type(text)
        line = self.line()
        assert line, self.finish()
        shown: dict[str, Any] = json.loads(line)
        return shown

    def notices(self) -> Iterator[dict[str, Any]]:
        assert self.process.stderr is not None
        return map(json.loads, self.process.stderr)

    def finish(self) -> tuple[int, str, str]:
        """End the input, and return status, standard output and standard error."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out, err

    def end(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.communicate()


def environment(home: Path, **variables: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPYCACHEPREFIX") if name in os.environ}
    return {**kept, "FANXING_SCANNER_HOME": str(home), "LANG": "C.UTF-8", **variables}


@dataclass
class Shop:
    """A trust domain of one root key and one key of codes, and a scanner's folder that pins it."""

    folder: Path
    clock_s: int = field(default_factory=lambda: int(time.time()))
    key: SigningKey = field(default_factory=SigningKey.generate, repr=False)
    programs: list[Program] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.signer = Signer(Algorithm.ED25519, bytes(self.key.verify_key))
        self.root = Root(
            domain="shop.example",
            version=1,
            issued=self.clock_s - 400 * DAY_S,
            expires=self.clock_s + 400 * DAY_S,
            keys=(self.signer,),
            threshold=1,
            publishers=(self.signer,),
        )

    @property
    def home(self) -> Home:
        return Home(self.folder / "scanner")

    def _sealed(self, kind: DocumentType, payload: bytes) -> bytes:
        return seal(kind, payload, {self.signer: self.key.sign(to_be_signed(kind, payload, self.signer)).signature})

    def trust_file(self, seq: int = 1, age_s: int = 3_600, life_s: int = 30 * DAY_S, **changes: Any) -> bytes:
        """The root document and a bundle that was issued so long ago."""
        key = BundleKey(KID, bytes(self.key.verify_key), ISSUER, ("9506000",))
        issued = self.clock_s - age_s
        prev = {} if seq == 1 else {"prev": bytes(32)}
        revocations = changes.pop("revocations", Revocations())
        bundle = Bundle("shop.example", seq, issued, issued + life_s, (key,), revocations, **prev, **changes)
        root = self._sealed(DocumentType.ROOT, self.root.payload())
        return root + self._sealed(DocumentType.BUNDLE, bundle.payload())

    def pin(self) -> None:
        """Make the scanner know its root, as enrolling does."""
        self.home.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.home.keep_pin(self.root.fingerprint)

    def equip(self, content: bytes | None = None) -> None:
        """Give the scanner its root and a trust file."""
        from offline_sdk.scanner.trust import Trust

        self.pin()
        Trust(self.home.trust, self.root.fingerprint).update(self.trust_file() if content is None else content)

    def move(self, server: str, to: str) -> None:
        """Have the scanner believe that its server is elsewhere, as a network that is cut does."""
        state = self.home.device / STATE_FILE
        state.write_text(state.read_text().replace(server, to))

    def text(self, item: int = 1, order: int = 1) -> str:
        """The code text of a genuine item's outer code."""
        serial = f"{order:05d}{item:09d}"
        signature = self.key.sign(encode_message(1, KID, GTIN, serial)).signature
        return encode_text("https://id.example.cn", 1, KID, signature, GTIN, serial)

    def forged(self, item: int = 1) -> str:
        """A text with another digit in its signature."""
        text = self.text(item)
        at = len(text) - 100
        return f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}"

    def start(self, *arguments: str, **variables: str) -> Program:
        program = Program(self.home.folder, *arguments, **variables)
        self.programs.append(program)
        return program

    def run(self, *arguments: str, given: str | bytes = "", **variables: str) -> tuple[int, str, str]:
        """Run a command to its end, in this process: status, standard output, standard error."""
        out, err, status = io.StringIO(), io.StringIO(), 0
        path = self.folder / "typed"
        path.write_bytes(given.encode() if isinstance(given, str) else given)
        with (
            path.open(encoding="utf-8") as typed,
            patch.object(sys, "stdin", typed),
            patch.dict(os.environ, environment(self.home.folder, **variables), clear=True),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                status = main(arguments)
            except SystemExit as exit_:  # argparse's, for bad usage
                status = int(exit_.code or 0)
        return status, out.getvalue(), err.getvalue()
