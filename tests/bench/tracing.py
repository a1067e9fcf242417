"""An item's history and its trace through five levels of packing, by 50 clients, while the events become many.

    make bench                                                               # up to 1,000,000 events, with the others
    FANXING_BENCH_EVENTS=10000000 .venv/bin/python -m tests.bench tracing    # the bar's own run

FANXING_BENCH_EVENTS is how many events there are at last (22,790 to 10,000,000; about 2.5 GB of disk a million). The
same is measured at 100,000 events, and at 1,000,000 where there will be more, so that one sees what grows.

The database is PostgreSQL with fsync. The journeys of `journeys` are in it as capture would have stored them, which is
proved first: one is captured through HTTP, and its rows are compared with those that are made. The answers come from
two `fanxing serve`, one a core of the machine, on one database, and each is of a random item.
Beside it: pgbench reading the same rows by bare SQL, over as many connections.
"""

import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import psycopg

from loadtest.installation import Installation, free_port
from tests.bench.client import percentiles_ms
from tests.bench.figures import Figure
from tests.bench.journeys import COLUMNS, EVENTS_ALL, ITEMS_ALL, TABLES, Journeys, Shared, item_name
from tests.bench.serving import Postgres

EVENTS_VARIABLE, EVENTS_DEFAULT, EVENTS_MAX = "FANXING_BENCH_EVENTS", 1_000_000, 10_000_000
FIRST_STAGE, MIDDLE_STAGE = 100_000, 1_000_000
CLIENTS, SECONDS, WARM_UP_SECONDS = 50, 10, 2
SERVERS, CONNECTIONS = 2, 3
"""CONNECTIONS: of each server to the database, which has the same two cores."""
P95_MS_MAX, GROWTH_MAX = 100, 2
_ITEMS_ASKED = 20_000
_EVENTS_A_DOCUMENT = 1_000
_RECORD_TIME = "2026-01-01T00:00:00.000Z"
_PROVED_WITHOUT = ("record_time", "capture_id")
"""A capture has its own."""
_LOADERS = 2
_MAINTENANCE_MEMORY = "512MB"
_TICKS_S = os.sysconf("SC_CLK_TCK")

# The names of an item's containers, as the trace finds them, without the times; then what names one of them.
_BARE = {
    "history": """
        SELECT e.content FROM event_thing t JOIN epcis_event e ON e.event_key = t.event_key
        WHERE t.thing = 'ITEM' || :item AND t.brand_id = BRAND""",
    "trace": """
        WITH RECURSIVE around(thing) AS (
            SELECT 'ITEM' || :item COLLATE "C" UNION ALL
            SELECT p.parent FROM around JOIN packing p ON p.child = thing AND p.brand_id = BRAND WHERE p.kind = 'add')
        SELECT e.content FROM around JOIN event_thing t ON t.thing = around.thing AND t.brand_id = BRAND
        JOIN epcis_event e ON e.event_key = t.event_key""",
}
_PATHS: dict[str, Callable[[str], str]] = {
    "history": lambda item: f"/epcis/epcs/{quote(item, safe='')}/events",
    "trace": lambda item: f"/v1/trace/{quote(item, safe='')}",
}
_TITLES = {"history": "item history", "trace": "five-level trace"}


@dataclass(frozen=True)
class _Measured:
    """What answers took in milliseconds by percentile, there and by bare SQL; a server's CPU for one of them."""

    taken_ms: dict[str, float]
    bare_ms: dict[str, float]
    cpu_ms: float


def tracing(folder: Path) -> list[Figure]:
    """Both at every stage, and how they grow from the first to the last."""
    events = int(os.environ.get(EVENTS_VARIABLE, EVENTS_DEFAULT))
    if not 10 * EVENTS_ALL <= events <= EVENTS_MAX:
        raise SystemExit(f"{EVENTS_VARIABLE} is {10 * EVENTS_ALL:,} to {EVENTS_MAX:,}")
    stages = [stage for stage in (FIRST_STAGE, MIDDLE_STAGE) if stage < events] or [events // 10]
    # What is loaded into a table that the same transaction has emptied need not be in the log (manual, 14.4.7).
    postgres = Postgres(folder / "postgres", wal_level="minimal", max_wal_senders="0")
    try:
        home = folder / "home"
        home.mkdir()
        installation = Installation(home, postgres.url)
        installation.set_up(1)
        key = installation.api_key("brand")
        shared = _proved(postgres, installation, key)
        measured = {}
        for stage in [*stages, events]:
            journeys = round(stage / EVENTS_ALL)
            _fill(postgres, shared, journeys)
            for what, found in _measured(postgres, installation, key, shared, journeys).items():
                measured[what, stage] = found
                _tell(f"{_TITLES[what]}, {stage:,} events: {found}\n")
    finally:
        postgres.stop()
    return [figure for what in _PATHS for figure in _figures(what, [*stages, events], measured)]


def _figures(what: str, stages: Sequence[int], measured: dict[tuple[str, int], _Measured]) -> Iterator[Figure]:
    for stage in stages:
        found = measured[what, stage]
        for percentile, taken in found.taken_ms.items():
            bare = found.bare_ms[percentile]
            title = f"{_TITLES[what]}, {stage:,} events, {percentile}"
            yield Figure(title, taken, "ms", "bare SQL, 50 connections", bare, taken / bare)
        p95 = found.taken_ms["p95"]
        yield Figure("  its p95", p95, "ms", "bar", P95_MS_MAX, p95 / P95_MS_MAX)
        share = p95 * SERVERS / CLIENTS
        yield Figure(
            "  a server's CPU for one", found.cpu_ms, "ms", "p95 × servers / clients", share, found.cpu_ms / share
        )
    first, last = (measured[what, stage].taken_ms["p95"] for stage in (stages[0], stages[-1]))
    growth = last / first
    title = f"  growth of p95 from {stages[0]:,} events"
    yield Figure(title, growth, "times", "bar", GROWTH_MAX, growth / GROWTH_MAX)


def _proved(postgres: Postgres, installation: Installation, key: str) -> Shared:
    """Capture a journey, and make the same: the rows are equal. What the rows of that capture have in common."""
    [(brand_id,)] = postgres.run("SELECT brand_id FROM brand")
    draft = Journeys(Shared(brand_id, "0" * 32, "0" * 32, _RECORD_TIME))
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with installation.serving(), httpx2.Client(base_url=installation.url, headers=headers, timeout=60) as client:
        for document in draft.documents(0, _EVENTS_A_DOCUMENT):
            answer = client.post("/epcis/capture", content=document)
            assert answer.is_success, answer.text[:300]
    captured = {table: _rows(postgres, table) for table in TABLES}
    [(capture_id, context_id)] = postgres.run("SELECT capture_id, context_id FROM epcis_event LIMIT 1")
    shared = Shared(brand_id, capture_id.hex, context_id.hex, _RECORD_TIME)
    _fill(postgres, shared, 1)
    for table in TABLES:
        for one, other in itertools.zip_longest(captured[table], _rows(postgres, table)):
            assert one == other, f"{table}: captured {one}, made {other}"
    return shared


def _rows(postgres: Postgres, table: str) -> list[Any]:
    columns = [column for column in COLUMNS[table] if column not in _PROVED_WITHOUT]
    places = ", ".join(str(place) for place in range(1, len(columns) + 1))
    return postgres.run(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {places}")  # noqa: S608 - names of ours


def _fill(postgres: Postgres, shared: Shared, journeys: int) -> None:
    """So many journeys, in place of what was there: rows first, indexes afterwards."""
    started = time.perf_counter()
    indexes = _indexes(postgres)
    for drop, _make in indexes:
        postgres.run(drop)
    with ProcessPoolExecutor(_LOADERS) as loaders:
        loads = [loaders.submit(_load, postgres.url, table, shared, journeys) for table in TABLES]
        while wait_for(loads, 1).not_done:
            _tell_progress(postgres, journeys * EVENTS_ALL, loads, started)
        for load in loads:
            load.result()
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"SET maintenance_work_mem = '{_MAINTENANCE_MEMORY}'")
        for number, (_drop, make) in enumerate(indexes, 1):
            _tell(f"{journeys * EVENTS_ALL:,} events: index {number} of {len(indexes)}")
            connection.execute(make)
        connection.execute(f"ANALYZE {', '.join(TABLES)}")
        connection.execute("CHECKPOINT")
        [(size,)] = connection.execute("SELECT pg_database_size(current_database())")
    seconds = time.perf_counter() - started
    _tell(f"{journeys * EVENTS_ALL:,} events loaded in {seconds:.0f} s, {size / 1e9:.1f} GB\n")


def _indexes(postgres: Postgres) -> list[tuple[str, str]]:
    """For each index of the tables, what drops it and what makes it again."""
    tables = f"{{{','.join(TABLES)}}}"
    keys = postgres.run(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE contype IN ('p', 'u') AND conrelid = ANY(%s::regclass[])",
        tables,
    )
    plain = postgres.run(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
        "WHERE indrelid = ANY(%s::regclass[]) AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid)",
        tables,
    )
    return [
        *(
            (f"ALTER TABLE {table} DROP CONSTRAINT {name}", f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
            for table, name, definition in keys
        ),
        *((f"DROP INDEX {name}", definition) for name, definition in plain),
    ]


def _load(url: str, table: str, shared: Shared, journeys: int) -> None:
    made = Journeys(shared)
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {table}")
        # FREEZE leaves the rows as a VACUUM would.
        into = f"COPY {table} ({', '.join(COLUMNS[table])}) FROM STDIN (FREEZE)"
        with cursor.copy(into) as copy:
            for number in range(journeys):
                copy.write(made.rows(table, number))


def _tell_progress(postgres: Postgres, events: int, loads: Sequence[Future[None]], started: float) -> None:
    [(copied,)] = postgres.run(
        "SELECT coalesce(max(tuples_processed), 0) FROM pg_stat_progress_copy WHERE relid = 'epcis_event'::regclass"
    )
    done, seconds = sum(load.done() for load in loads), time.perf_counter() - started
    _tell(f"{events:,} events: {copied / events:.0%} copied, {done} of {len(loads)} tables, {seconds:.0f} s")


def _tell(text: str) -> None:
    if text.endswith("\n") or sys.stderr.isatty():
        print(f"\r\033[K{text}" if sys.stderr.isatty() else text, end="", file=sys.stderr, flush=True)


def _measured(
    postgres: Postgres, installation: Installation, key: str, shared: Shared, journeys: int
) -> dict[str, _Measured]:
    items = random.Random(journeys).sample(range(journeys * ITEMS_ALL), min(_ITEMS_ASKED, journeys * ITEMS_ALL))
    found = {}
    settings = {"FANXING_BASE_URL": installation.url, "FANXING_DATABASE_CONNECTIONS": str(CONNECTIONS)}
    servers = [replace(installation, settings=settings, port=free_port()) for _number in range(SERVERS)]
    with contextlib.ExitStack() as until_done:
        pids = [until_done.enter_context(server.serving()) for server in servers]
        for what, path in _PATHS.items():
            paths = [path(item_name(item)) for item in items]
            for server in servers:
                _check(what, server, key, paths[0])
            _asked(servers, key, paths[::-1], WARM_UP_SECONDS)
            cpu_before = sum(map(_cpu_seconds, pids))
            done = _asked(servers, key, paths, SECONDS)
            cpu_ms = (sum(map(_cpu_seconds, pids)) - cpu_before) * 1_000 / sum(done["answers"].values())
            found[what] = _Measured(done["taken_ms"], _bare(postgres, what, shared.brand_id, journeys), cpu_ms)
    return found


def _check(what: str, installation: Installation, key: str, path: str) -> None:
    """That an answer has all it should: of an item's own events four, and those of its containers."""
    answer = httpx2.get(installation.url + path, headers={"Authorization": f"Bearer {key}"}, timeout=60)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    if what == "trace":
        assert {thing["steps"] for thing in body["things"] if thing["direction"] == "around"} == {1, 2, 3, 4}, body
        assert len(body["way"]) >= 15, body
    else:
        assert len(body["epcisBody"]["queryResults"]["resultsBody"]["eventList"]) == 4, body


def _asked(servers: Sequence[Installation], key: str, paths: Sequence[str], seconds: float) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key}", "accept": "application/json"}
    job = {
        "host": "127.0.0.1",
        "ports": [server.port for server in servers],
        "connections": CLIENTS,
        "seconds": seconds,
        "requests": [{"method": "GET", "path": path, "headers": headers} for path in paths],
        "repeat": True,
    }
    command = [sys.executable, "-m", "tests.bench.client"]
    done = subprocess.run(command, input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["answers"].keys() == {"200"}, answer
    return answer


def _cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS_S


def _bare(postgres: Postgres, what: str, brand_id: int, journeys: int) -> dict[str, float]:
    """The same by bare SQL."""
    folder = Path(postgres.log).parent.parent
    sql = _BARE[what].replace("ITEM", item_name(0)[:-10]).replace("BRAND", str(brand_id))
    low, high = (int(item_name(number)[-10:]) for number in (0, journeys * ITEMS_ALL - 1))
    script = folder / f"{what}.sql"
    script.write_text(f"\\set item random({low}, {high})\n{' '.join(sql.split())};\n", encoding="utf-8")
    load = ("-c", str(CLIENTS), "-j", "1", "-T", str(SECONDS), "-l", f"--log-prefix={folder}/{what}")
    command = [postgres.pgbench_path, "-n", "-M", "prepared", *load, "-f", script, postgres.url]
    subprocess.run(command, check=True, capture_output=True)
    taken_s = []
    for log in folder.glob(f"{what}.*[0-9]"):
        with log.open(encoding="ascii") as lines:
            taken_s += [int(line.split()[2]) / 1e6 for line in lines]
        with contextlib.suppress(OSError):
            log.unlink()
    return percentiles_ms(taken_s)
