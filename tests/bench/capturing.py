"""Capture of EPCIS events: events a second through HTTP on PostgreSQL, beside parsing and a bare COPY of the same."""

import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg

from loadtest.installation import Installation
from tests.bench.figures import Figure, figure, in_turns
from tests.bench.serving import Postgres

EVENTS, DOCUMENTS, ROUNDS = 1_000, 8, 3
EPCS = 3
RATE_BAR, RATIO_BAR = 5_000, 0.1
_CONTEXT = ["https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld", {"ex": "https://ns.example.com/"}]


def capturing(folder: Path) -> list[Figure]:
    """Documents of a thousand events with three items each, one after another, by one worker."""
    postgres = Postgres(folder / "postgres")
    try:
        home = folder / "home"
        home.mkdir()
        installation = Installation(home, postgres.url)
        installation.set_up(1)
        key = installation.api_key("brand")
        postgres.run("CREATE TABLE bare_event (content text)")
        numbers = itertools.count()
        with installation.serving() as pid:
            _captured(installation, key, _documents(numbers, 1))
            memory_before = _resident_mib(pid)
            rates, bare = in_turns(
                ROUNDS,
                lambda: _captured(installation, key, _documents(numbers, DOCUMENTS)),
                lambda: _copied(postgres, _documents(numbers, DOCUMENTS)),
            )
            memory = _resident_mib(pid)
    finally:
        postgres.stop()
    rate = sorted(rates)[len(rates) // 2]
    return [
        figure("EPCIS capture, documents of 1,000", rates, "events/s", "json.loads and a bare COPY", bare),
        Figure("  its rate", rate, "events/s", "bar", RATE_BAR, rate / RATE_BAR),
        Figure("  memory after it", memory, "MiB", "before it", memory_before, memory / memory_before),
    ]


def _documents(numbers: Iterator[int], count: int) -> list[bytes]:
    return [_document(numbers) for _ in range(count)]


def _document(numbers: Iterator[int]) -> bytes:
    events = [_event(number) for number in itertools.islice(numbers, EVENTS)]
    whole = {
        "@context": _CONTEXT,
        "type": "EPCISDocument",
        "schemaVersion": "2.0",
        "creationDate": "2026-06-02T08:00:00Z",
        "epcisBody": {"eventList": events},
    }
    return json.dumps(whole).encode()


def _event(number: int) -> dict[str, Any]:
    minute, second = divmod(number % 3_600, 60)
    return {
        "type": "ObjectEvent",
        "eventTime": f"2026-06-01T08:{minute:02}:{second:02}.000+08:00",
        "eventTimeZoneOffset": "+08:00",
        "epcList": [f"urn:epc:id:sgtin:9506000.013435.{number * EPCS + item}" for item in range(EPCS)],
        "action": "OBSERVE",
        "bizStep": "shipping",
        "disposition": "in_transit",
        "readPoint": {"id": f"urn:epc:id:sgln:9506000.{number % 50:05}.0"},
        "bizTransactionList": [{"type": "po", "bizTransaction": f"urn:epcglobal:cbv:bt:9506000000015:{number}"}],
        "ex:lorry": f"沪A {number % 100_000:05}",
    }


def _captured(installation: Installation, key: str, documents: list[bytes]) -> float:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with httpx2.Client(base_url=installation.url, headers=headers, timeout=60) as client:
        started = time.perf_counter()
        for document in documents:
            answer = client.post("/epcis/capture", content=document)
            assert answer.json()["accepted"] == EVENTS, answer.text[:300]
        return EVENTS * len(documents) / (time.perf_counter() - started)


def _copied(postgres: Postgres, documents: list[bytes]) -> float:
    with psycopg.connect(postgres.url) as connection:
        started = time.perf_counter()
        for document in documents:
            events = json.loads(document)["epcisBody"]["eventList"]
            with connection.cursor().copy("COPY bare_event FROM STDIN") as copy:
                for event in events:
                    copy.write_row([json.dumps(event, ensure_ascii=False)])
            connection.commit()
        return EVENTS * len(documents) / (time.perf_counter() - started)


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
