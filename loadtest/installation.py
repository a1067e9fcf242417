"""A throw-away installation: set up in a temporary folder by the `fanxing` command, served on a free port of 127.0.0.1.

Nothing of ours is imported: what is measured is what an operator installs and starts.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

COMMAND_TIMEOUT_S = 300
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 20

GTIN = "09506000134352"
BRAND = "load"
BUDGET = 5_000_000_000
"""Of the campaign, in its prize's unit."""
_BIN = Path(sys.executable).parent


class CommandFailed(Exception):
    """A `fanxing` command did not do what it was told; the message is its own."""


class NotReady(Exception):
    """A server that was started does not answer; the message holds the end of its log."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Installation:
    """One server's folder, database and environment. An empty `database_url` means SQLite in the folder."""

    folder: Path
    database_url: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    """More FANXING_* variables."""
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        """Where the server answers; also the base URL of its codes."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every command: none of the caller's own FANXING_* variables gets in."""
        left_out = ("FANXING_", "PYTHONDONTWRITEBYTECODE")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        return {
            **inherited,
            # A dozen commands start: where byte code is not kept beside the source, each would compile everything anew.
            "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"),
            "FANXING_HOME": str(self.folder),
            "FANXING_DATABASE_URL": self.database_url,
            "FANXING_BASE_URL": self.url,
            "FANXING_PORT": str(self.port),
            "FANXING_CODE_SENDER": "development",
            **self.settings,
        }

    def fanxing(self, *words: str) -> dict[str, Any]:
        """Run a `fanxing` command and give back what it answers. Raises CommandFailed."""
        done = subprocess.run(  # noqa: S603 - our own command, found beside this Python
            [_BIN / "fanxing", *words, "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise CommandFailed(f"fanxing {' '.join(words[:2])}: {(done.stdout + done.stderr).strip()}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def set_up(self, items: int, prize: str = "mb") -> None:
        """A brand with one product and an order of so many items on sale, whose inner codes pay 5 MB or points each.

        Leaves the codes in outer.csv and inner.csv in the folder.
        """
        today = datetime.now(UTC).date()
        self.fanxing("init", "--make-passphrase")
        self.fanxing("issuer", "create", "--name", "Load", "--gtin-prefix", "9506000")
        names = ("--name-zh", "雪糕", "--name-en", "Ice cream")
        self.fanxing("brand", "create", "--slug", BRAND, "--issuer", "Load", "--group", "load", *names)
        self.fanxing("product", "create", "--brand", BRAND, "--gtin", GTIN, *names)
        faces = ("--face", "outer", "--face", "inner", "--export", "csv", "--out", str(self.folder))
        self.fanxing("order", "create", "--gtin", GTIN, "--quantity", str(items), *faces)
        self.fanxing("order", "activate", "--gtin", GTIN, "--order", "1")
        self.fanxing(
            *("campaign", "create", "--brand", BRAND, "--title-zh", "夏日", "--title-en", "Summer"),
            *("--face", "inner", "--prize", prize, "--amount", "5", "--budget", str(BUDGET)),
            *("--starts", str(today - timedelta(days=1)), "--ends", str(today + timedelta(days=30))),
        )

    def api_key(self, role: str) -> str:
        """A new API key for this role at the brand."""
        brand = () if role == "regulator" else ("--brand", BRAND)
        return str(self.fanxing("api-key", "create", "--role", role, "--label", f"load {role}", *brand)["api_key"])

    @contextlib.contextmanager
    def serving(self) -> Iterator[int]:
        """`fanxing serve`, ready, until the block is left; its process id. Raises NotReady."""
        command = [str(_BIN / "fanxing"), "serve"]
        with running(command, self.folder / "server.log", self.environment) as process:
            wait_until_ready(f"{self.url}/readyz", process, self.folder / "server.log")
            yield process.pid


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes to a log file, until the block is left."""
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Ask until the answer is 2xx. Raises NotReady when the process ends or half a minute has passed."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - http://127.0.0.1 of our own
            return
        time.sleep(0.1)
    raise NotReady(f"{url} does not answer:\n{log.read_text(errors='replace')[-2000:]}")
