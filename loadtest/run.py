"""`make load`: set up a throw-away installation, drive the four users against it, check the books, clear it away.

    python -m loadtest.run --seconds 60 --users 40 [--database-url postgresql://…]

An empty database is needed where one is given. Exits with 0 when no request failed and the books balance.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from loadtest.installation import CommandFailed, Installation, free_port, running

SECONDS_DEFAULT, SECONDS_MAX = 60, 600
USERS_DEFAULT, USERS_MAX = 40, 200
ITEMS = 20_000
"""More than a server can be made to claim in ten minutes here."""
STOP_GRACE_S = 60
_HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.run", description="Drive the four users for a while.")
    parser.add_argument("--seconds", type=_within(SECONDS_MAX), default=SECONDS_DEFAULT, help=f"1 to {SECONDS_MAX}")
    parser.add_argument("--users", type=_within(USERS_MAX), default=USERS_DEFAULT, help=f"1 to {USERS_MAX}")
    parser.add_argument("--database-url", default="", help="an empty PostgreSQL database; default: SQLite")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    with tempfile.TemporaryDirectory(prefix="fanxing-load-") as folder:
        return _load(Path(folder), asked.database_url, asked.seconds, asked.users)


def _within(most: int) -> Callable[[str], int]:
    """A reader of numbers from 1 to `most`."""

    def number(text: str) -> int:
        if not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"1 to {most}")
        return int(text)

    return number


def _load(folder: Path, database_url: str, seconds: int, users: int) -> int:
    carrier_port = free_port()
    settings = {"FANXING_CARRIER_URL": f"http://127.0.0.1:{carrier_port}"}
    installation = Installation(folder, database_url, settings)
    print("Setting up…", flush=True)
    installation.set_up(ITEMS)
    keys = folder / "api-keys.json"
    keys.write_text(json.dumps({role: installation.api_key(role) for role in ("logistics", "regulator")}))
    carrier = [sys.executable, "-m", "loadtest.carrier", "--port", str(carrier_port)]
    carrier += ["--state", str(folder / "carrier.sqlite")]
    with running(carrier, folder / "carrier.log"), installation.serving():
        print(f"{users} users for {seconds} s against {installation.url}", flush=True)
        failed = _drive(installation, keys, seconds, users) != 0
    try:
        books = installation.fanxing("ledger", "verify")
        print(f"The books balance: {books['transfers']} transfers, {books['entries']} entries.")
    except CommandFailed as error:
        print(error)
        failed = True
    print("FAILED" if failed else "PASSED: no request failed")
    return int(failed)


def _drive(installation: Installation, keys: Path, seconds: int, users: int) -> int:
    """Run locust; it prints its table, and exits with 1 when a request failed."""
    command = [
        *(sys.executable, "-m", "locust", "-f", str(_HERE / "locustfile.py")),
        *("--headless", "--only-summary", "--host", installation.url),
        *("--users", str(users), "--run-time", f"{seconds}s", "--stop-timeout", "10s"),
        *("--outer", str(installation.folder / "outer.csv"), "--inner", str(installation.folder / "inner.csv")),
        *("--keys", str(keys)),
    ]
    return subprocess.run(command, timeout=seconds + STOP_GRACE_S, check=False).returncode  # noqa: S603 - as built above


if __name__ == "__main__":
    sys.exit(main())
