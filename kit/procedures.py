"""Procedures: several statements that are one transaction and, on PostgreSQL, one round trip.

A procedure is written once, as SQL that both databases understand. PostgreSQL keeps it as a PL/pgSQL function, made by
`fanxing init`; SQLite, which is in this process and where a round trip costs nothing, runs its statements one by one.

In the SQL `:name` is a parameter or what an earlier step gave, `[[…]]` is for PostgreSQL alone (row locks, mostly), and
`= ANY(:name)` asks for one of a list of ids or texts.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property, partial
from typing import Any

import psycopg
import sqlalchemy as sa
from msgspec.json import Decoder
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from kit.db import POSTGRES_OPTIONS, Database, Moment, Session, is_postgresql, look_at
from kit.errors import ConfigurationError

REFUSAL_SQLSTATE = "FX001"
"""Of every refusal by a step; the message is its name. PostgreSQL keeps no class FX for itself (manual, appendix A)."""

POOL_TIMEOUT_S = 10.0
"""How long a call waits for a connection."""

_PLACE = re.compile(r"(?<!:):([a-z_]+)")
_ANY = re.compile(r"= ANY\((:[a-z_]+)\)")
_FOR_POSTGRESQL = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)
_FUNCTIONS = sa.text("SELECT proname FROM pg_proc WHERE proname = ANY(:names)")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Kind(StrEnum):
    """The type of a value, by PostgreSQL's name for it."""

    UUID = "uuid"
    UUIDS = "uuid[]"
    BIGINT = "bigint"
    INTEGER = "integer"
    TEXT = "text"
    TEXTS = "text[]"
    BYTES = "bytea"
    MOMENT = "timestamp with time zone"
    JSON = "json"
    BOOLEAN = "boolean"


_TYPES: dict[Kind, TypeEngine[Any]] = {
    Kind.UUID: sa.Uuid(),
    Kind.UUIDS: sa.Text(),
    Kind.BIGINT: sa.BigInteger(),
    Kind.INTEGER: sa.Integer(),
    Kind.TEXT: sa.Text(),
    Kind.TEXTS: sa.Text(),
    Kind.BYTES: sa.LargeBinary(),
    Kind.MOMENT: Moment(),
    Kind.JSON: sa.JSON(none_as_null=True),
    Kind.BOOLEAN: sa.Boolean(),
}

_LISTS: dict[Kind, TypeEngine[Any]] = {
    Kind.UUIDS: postgresql.ARRAY(sa.Uuid()),
    Kind.TEXTS: postgresql.ARRAY(sa.Text()),
}

_WRITTEN: Mapping[Kind, Callable[[Any], str]] = {
    Kind.JSON: json.dumps,
    # A twentieth of what the driver takes for a list.
    Kind.UUIDS: lambda ids: f"{{{','.join([one.hex for one in ids])}}}",
}
_IN_JSON: Mapping[Kind, Any] = {
    Kind.UUID: uuid.UUID | None,
    Kind.BIGINT: int | None,
    Kind.INTEGER: int | None,
    Kind.TEXT: str | None,
    Kind.MOMENT: datetime | None,
    Kind.JSON: Any,
    Kind.BOOLEAN: bool | None,
}


class Refused(Exception):
    """A step found no row where it needs one; everything that the procedure did is undone. `name` says which."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class Step:
    """One statement. It is skipped when the boolean `when`, a parameter or given before, is false.

    `gives` names what the statement returns, in order, for later steps and for the answer. `refusal` is raised when it
    returns no row, or changes none. With `collects`, all rows of a SELECT are one value of that name for the answer, a
    list with a tuple for each row; `gives` then tells what a row holds, of any kind but bytes and lists.
    """

    sql: str
    gives: Mapping[str, Kind] = field(default_factory=dict)
    refusal: str | None = None
    when: str | None = None
    collects: str | None = None

    @property
    def values(self) -> Mapping[str, Kind]:
        """What is known once the step was taken."""
        return {self.collects: Kind.JSON} if self.collects else self.gives


@dataclass(frozen=True)
class Procedure:
    """Steps, the parameters that they use, and the values that they answer with.

    `writes` tells whether SQLite's one writer has to be waited for. The function's name ends in a hash of its wording,
    so that servers of two versions can work during an upgrade.
    """

    title: str
    parameters: Mapping[str, Kind]
    steps: Sequence[Step]
    answer: Sequence[str]
    writes: bool = True

    def __post_init__(self) -> None:
        known = set(self.parameters)
        for step in self.steps:
            used = {*_PLACE.findall(step.sql), *filter(None, [step.when])}
            if used - known:
                raise ValueError(f"{self.title}: {sorted(used - known)} are neither parameters nor given before")
            known |= set(step.values)
        if (
            not self.answer
            or not set(self.answer) <= known
            or not all(_NAME.fullmatch(name) for name in known | {self.title})
        ):
            raise ValueError(f"{self.title}: it answers nothing or what is not known, or a name is none")

    @cached_property
    def kinds(self) -> Mapping[str, Kind]:
        """Of every parameter and every value that a step gives."""
        return {**self._given, **self.parameters}

    @cached_property
    def _given(self) -> Mapping[str, Kind]:
        return {name: kind for step in self.steps for name, kind in step.values.items()}

    @cached_property
    def ddl(self) -> str:
        """The statement that makes the function on PostgreSQL (manual, chapter 41)."""
        return f"CREATE OR REPLACE FUNCTION {self.name}{self._definition}"

    @cached_property
    def name(self) -> str:
        """The function's name: the title, and the first 12 hex digits of the SHA-256 of its definition."""
        return f"{self.title}_{hashlib.sha256(self._definition.encode()).hexdigest()[:12]}"

    @cached_property
    def _definition(self) -> str:
        taken = [f"p_{name} {kind}" for name, kind in self.parameters.items()]
        given = [f"OUT o_{name} {self.kinds[name]}" for name in self.answer]
        declared = "".join(f"  v_{name} {kind};\n" for name, kind in self._given.items())
        body = "".join(self._block(step) for step in self.steps)
        answer = "".join(f"  o_{name} := {self._variable(name)};\n" for name in self.answer)
        return (
            f"(\n  {', '.join(taken + given)})\n"
            # Left to itself it plans a look at a list of names anew each time, at ten times the cost of the look.
            # All statements of one that writes nothing see the state of the one moment when it was called.
            f"LANGUAGE plpgsql {'VOLATILE' if self.writes else 'STABLE'} SET plan_cache_mode = force_generic_plan\n"
            f"AS $procedure$\n#variable_conflict use_column\nDECLARE\n{declared}BEGIN\n{body}{answer}"
            "END $procedure$"
        )

    def _block(self, step: Step) -> str:
        sql = _FOR_POSTGRESQL.sub(r"\1", step.sql).strip()
        sql = _PLACE.sub(lambda found: self._variable(found[1]), sql)
        if step.collects:
            columns = ", ".join(f"column_{number}" for number in range(len(step.gives)))
            rows = f"SELECT coalesce(json_agg(json_build_array({columns})), '[]') FROM ({sql}) AS given ({columns})"  # noqa: S608 - statements of ours
            statement = f"  {rows} INTO v_{step.collects};\n"
        elif step.gives:
            into = ", ".join(f"v_{name}" for name in step.gives)
            statement = f"  {sql} INTO {into};\n"
            if sql.upper().startswith("SELECT"):
                statement = f"  SELECT * FROM ({sql}) AS given INTO {into};\n"  # noqa: S608 - statements of ours
        elif sql.upper().startswith("SELECT"):
            statement = f"  PERFORM{sql[len('SELECT') :]};\n"
        else:
            statement = f"  {sql};\n"
        if step.refusal is not None:
            statement += (
                f"  IF NOT FOUND THEN RAISE EXCEPTION USING ERRCODE = '{REFUSAL_SQLSTATE}', "
                f"MESSAGE = '{step.refusal}'; END IF;\n"
            )
        return f"  IF {self._variable(step.when)} THEN\n{statement}  END IF;\n" if step.when else statement

    def _variable(self, name: str) -> str:
        return f"p_{name}" if name in self.parameters else f"v_{name}"

    @cached_property
    def query(self) -> str:
        """The one statement that calls the function, with PostgreSQL's own places.

        psycopg would look for its own kind of places anew at each call of so long a statement.
        """
        taken = ", ".join(f"${number}::{kind}" for number, kind in enumerate(self.parameters.values(), 1))
        # JSON is read here, by what its columns are, and not by the driver first.
        told = (f"o_{name}::text" if self.kinds[name] is Kind.JSON else f"o_{name}" for name in self.answer)
        return f"SELECT {', '.join(told)} FROM {self.name}({taken})"  # noqa: S608 - names of ours

    def answered(self, row: Sequence[Any]) -> dict[str, Any]:
        """The answer that the function's row stands for."""
        answer = dict(zip(self.answer, row, strict=True))
        for name, read in self._readers.items():
            if answer[name] is not None:
                answer[name] = read(answer[name])
        return answer

    @cached_property
    def _readers(self) -> Mapping[str, Callable[[Any], Any]]:
        collected = {step.collects: step.gives.values() for step in self.steps if step.collects}
        readers: dict[str, Callable[[Any], Any]] = {}
        for name in self.answer:
            if self.kinds[name] is Kind.JSON:
                readers[name] = _decoder(collected.get(name)).decode
            elif self.kinds[name] is Kind.MOMENT:
                # PostgreSQL gives moments in the session's time zone.
                readers[name] = _in_utc
        return readers

    @cached_property
    def statements(self) -> Mapping[bool, list[sa.TextClause | sa.TextualSelect]]:
        """The steps one by one, for PostgreSQL (True) and for a database without procedures."""
        return {on: [self._statement(step, on_postgresql=on) for step in self.steps] for on in (True, False)}

    def _statement(self, step: Step, *, on_postgresql: bool) -> sa.TextClause | sa.TextualSelect:
        sql = _FOR_POSTGRESQL.sub(r"\1" if on_postgresql else "", step.sql).strip()
        sql = sql if on_postgresql else _ANY.sub(r"IN (SELECT value FROM json_each(\1))", sql)
        types = _TYPES | (_LISTS if on_postgresql else {})
        used = dict.fromkeys(_PLACE.findall(sql))
        statement = sa.text(sql).bindparams(*(sa.bindparam(name, type_=types[self.kinds[name]]) for name in used))
        return statement.columns(*(sa.column(name, _TYPES[kind]) for name, kind in step.gives.items()))


async def call(session: Session, procedure: Procedure, values: Mapping[str, Any]) -> dict[str, Any]:
    """Run a procedure's statements in the caller's transaction, one by one, and give its answer.

    Raises Refused; the caller's transaction must then be rolled back. `Caller.call` is the same in a transaction of its
    own.
    """
    on_postgresql = is_postgresql(session)
    known = {name: values[name] for name in procedure.parameters}
    if not on_postgresql:
        for name, kind in procedure.parameters.items():
            if kind is Kind.UUIDS:
                known[name] = json.dumps([one.hex for one in known[name]])  # as sqlalchemy.Uuid stores them here
            elif kind is Kind.TEXTS:
                known[name] = json.dumps(known[name])
    connection = await session.connection()
    for step, statement in zip(procedure.steps, procedure.statements[on_postgresql], strict=True):
        if (step.when and not known[step.when]) or not str(statement):
            known = dict.fromkeys(step.values) | known
            continue
        done = await connection.execute(statement, {name: known[name] for name in _PLACE.findall(str(statement))})
        if step.collects:
            known[step.collects] = [tuple(row) for row in done]
            continue
        row = done.first() if done.returns_rows else None
        if step.refusal is not None and (row is None if done.returns_rows else not done.rowcount):
            raise Refused(step.refusal)
        known.update(zip(step.gives, row if row is not None else [None] * len(step.gives), strict=False))
    return {name: known[name] for name in procedure.answer}


Ask = Callable[[Procedure, Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""Runs a procedure with values for its parameters: `asking(session)`, or `Caller.call`, each time by itself."""


def asking(session: Session) -> Ask:
    """What runs procedures in the caller's transaction."""
    return partial(call_at_once, session)


async def call_at_once(session: Session, procedure: Procedure, values: Mapping[str, Any]) -> dict[str, Any]:
    """The same, by the function where the database has one: for who does something else in the same transaction."""
    if not is_postgresql(session):
        return await call(session, procedure, values)
    raw = await (await session.connection()).get_raw_connection()
    connection = raw.driver_connection
    assert isinstance(connection, psycopg.AsyncConnection)
    return await _ask(connection, procedure, values)


async def _ask(
    connection: psycopg.AsyncConnection[Any], procedure: Procedure, values: Mapping[str, Any]
) -> dict[str, Any]:
    # Raises KeyError when a value is missing.
    given = [
        values[name] if kind not in _WRITTEN or values[name] is None else _WRITTEN[kind](values[name])
        for name, kind in procedure.parameters.items()
    ]
    try:
        row = await (await psycopg.AsyncRawCursor(connection).execute(procedure.query, given)).fetchone()
    except psycopg.Error as error:
        raise refusal_of(error) or error from None
    assert row is not None  # a function that answers one row
    return procedure.answered(row)


def _decoder(columns: Iterable[Kind] | None) -> Decoder[Any]:
    """What reads a list of rows with these columns, or any JSON."""
    if columns is None:
        return Decoder()
    # The list of a row's types is only known here, which is more than types can say.
    row: Any = tuple[tuple(_IN_JSON[kind] for kind in columns)]  # type: ignore[misc]
    return Decoder(list[row])


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def refusal_of(error: object) -> Refused | None:
    """The refusal that a database error stands for, if it is one."""
    if getattr(error, "sqlstate", None) != REFUSAL_SQLSTATE:
        return None
    name = getattr(getattr(error, "diag", None), "message_primary", None)
    return Refused(name or "")


async def install(database: Database, procedures: Sequence[Procedure]) -> None:
    """Make the functions that a database lacks. Those of other versions stay, for servers that still call them."""
    if database.engine.dialect.name == "postgresql":
        async with database.engine.begin() as connection:
            for procedure in procedures:
                # The driver's own statement: a text of SQLAlchemy's would take colons for its places.
                await connection.exec_driver_sql(procedure.ddl.replace("%", "%%"))


async def check(database: Database, procedures: Sequence[Procedure]) -> None:
    """Raises ConfigurationError when the database lacks one of these."""
    if database.engine.dialect.name != "postgresql":
        return
    names = {procedure.name for procedure in procedures}
    async with database.engine.connect() as connection:
        found = await connection.execute(_FUNCTIONS, {"names": list(names)})
    missing = names - set(found.scalars())
    if missing:
        raise ConfigurationError(
            f"the database lacks {', '.join(sorted(missing))}", hint="Run `fanxing init` with this version."
        )


class Caller:
    """Runs procedures, each in a transaction of its own.

    On PostgreSQL it has connections of its own, without SQLAlchemy: a session with its BEGIN and COMMIT costs eight
    times as much as a bare call, in processor time and in round trips.
    """

    def __init__(self, database: Database, connections: int = 10) -> None:
        self._database = database
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[tuple[Any, ...]]] | None = None
        if database.engine.dialect.name == "postgresql":
            self._pool = AsyncConnectionPool(
                database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False),
                kwargs={"autocommit": True, "options": POSTGRES_OPTIONS, "prepare_threshold": 1},
                min_size=0,
                max_size=connections,
                timeout=POOL_TIMEOUT_S,
                # It waits twice as long after each failure, for minutes in the end, also when the database is back.
                reconnect_timeout=POOL_TIMEOUT_S,
                check=_refuse_broken,
                open=False,
            )

    async def call(self, procedure: Procedure, values: Mapping[str, Any]) -> dict[str, Any]:
        """Run a procedure and commit it, or leave nothing behind. Raises Refused and psycopg.OperationalError."""
        if self._pool is None:
            opened = self._database.writing if procedure.writes else self._database.reading
            async with opened() as session:
                return await call(session, procedure, values)
        if self._pool.closed:
            await self._pool.open()
        connection = await self._pool.getconn()
        try:
            return await _ask(connection, procedure, values)
        finally:
            await self._pool.putconn(connection)

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()


async def _refuse_broken(connection: psycopg.AsyncConnection[Any]) -> None:
    look_at(connection.pgconn)
