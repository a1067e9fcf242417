"""CRM import: rows a second by the command on PostgreSQL, beside a bare COPY of the same rows into one table.

What is timed is the whole command, start of the process and all. The same file again must change nothing. PostgreSQL
shares this machine's cores.
"""

import random
import time
from pathlib import Path
from typing import Any

import psycopg

from loadtest.installation import BRAND, Installation
from tests.bench.figures import Figure, figure, in_turns
from tests.bench.serving import Postgres

ROWS = 1_000_000
"""So many that the start of two processes, some five seconds, is a tenth of the time; a CRM has more."""
ROUNDS = 2
RATE_BAR = 20_000
_HEADER = "phone,name,points,experience,tier,joined_at"


def importing(folder: Path) -> list[Figure]:
    """Rows a second of a first import, and of the same rows again in another order under another name."""
    postgres = Postgres(folder / "postgres")
    try:
        home = folder / "home"
        home.mkdir()
        installation = Installation(home, postgres.url)
        installation.set_up(1)
        postgres.run("CREATE TABLE bare (phone text, name text, points bigint, experience bigint, tier text, day date)")
        rounds = [_File(folder, number) for number in range(ROUNDS)]
        todo, bare_todo = iter(rounds), iter(rounds)

        def first() -> float:
            return _rate(installation, next(todo).path, changed=ROWS)

        def bare() -> float:
            return _copied(postgres, next(bare_todo).path)

        rates, bare_rates = in_turns(ROUNDS, first, bare)
        repeated = _rate(installation, rounds[0].shuffled(), changed=0)
    finally:
        postgres.stop()
    return [
        figure("CRM import, first time", rates, "rows/s", "COPY into one bare table", bare_rates),
        Figure("  the same rows again, reordered", repeated, "rows/s", "bar of a first", RATE_BAR, repeated / RATE_BAR),
    ]


class _File:
    """An export of customers that no other round has."""

    def __init__(self, folder: Path, number: int) -> None:
        self.path = folder / f"crm-{number}.csv"
        chance = random.Random(number)
        self._rows = [
            f"1{3 + number * 2}{serial:09d},客户{serial % 1000},{chance.randrange(5000)},{chance.randrange(3000)},,"
            f"20{chance.randrange(15, 25)}-0{1 + serial % 9}-1{serial % 10}"
            for serial in range(ROWS)
        ]
        self._write(self.path)

    def shuffled(self) -> Path:
        random.Random(0).shuffle(self._rows)
        again = self.path.with_name("again.csv")
        self._write(again)
        return again

    def _write(self, path: Path) -> None:
        path.write_text("\n".join([_HEADER, *self._rows]) + "\n", encoding="utf-8")


def _rate(installation: Installation, path: Path, changed: int) -> float:
    started = time.perf_counter()
    done: dict[str, Any] = installation.fanxing("crm", "import", str(path), "--brand", BRAND)
    seconds = time.perf_counter() - started
    assert (done["rows"], done["bad_rows"], done["changed"]) == (ROWS, 0, changed), done
    return ROWS / seconds


def _copied(postgres: Postgres, path: Path) -> float:
    content = path.read_bytes()
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("TRUNCATE bare")
        started = time.perf_counter()
        with connection.cursor() as cursor, cursor.copy("COPY bare FROM STDIN (FORMAT CSV, HEADER)") as copy:
            copy.write(content)
        return ROWS / (time.perf_counter() - started)
