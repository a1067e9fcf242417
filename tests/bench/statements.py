"""The SQL of one transaction as PostgreSQL itself logged it, and a pgbench script that does the same.

Taken from the server's log while the real API works, so it can never differ from what the API sends.
"""

import re
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

LOG_SETTINGS = {"log_statement": "'all'", "log_line_prefix": "'@@%p@@ '"}
_RECORD = re.compile(r"^@@(\d+)@@ (\w+):  (.*?)(?=^@@|\Z)", re.MULTILINE | re.DOTALL)
_SENT = re.compile(r"(?:statement|execute [^:]+): (.*)", re.DOTALL)
_VALUE = re.compile(r"\$(\d+) = (NULL|'(?:[^']|'')*')")
_PLACE = re.compile(r"\$(\d+)")


@dataclass(frozen=True)
class Statement:
    """One statement and the literals of its parameters, `NULL` or quoted."""

    sql: str
    values: Mapping[int, str]

    def filled(self, expressions: Mapping[str, str]) -> str:
        """The statement with its parameters in place, a literal that `expressions` names replaced by what they say."""

        def fill(place: re.Match[str]) -> str:
            literal = self.values[int(place[1])]
            return f"({expressions.get(literal, literal)})"

        return _PLACE.sub(fill, self.sql) if self.values else self.sql


Transaction = list[Statement]


def transactions(log: Path, start: int) -> Iterator[Transaction]:
    """The committed transactions in a log from that byte on, BEGIN and COMMIT among their statements.

    A statement outside BEGIN and COMMIT is a transaction of its own.
    """
    text = log.read_bytes()[start:].decode()
    under_way: dict[str, Transaction] = {}
    for process, kind, content in _RECORD.findall(text):
        known = under_way.setdefault(process, [])
        sent = _SENT.fullmatch(content) if kind == "LOG" else None
        if kind == "DETAIL" and known:
            values = {int(number): literal for number, literal in _VALUE.findall(content)}
            known[-1] = Statement(known[-1].sql, values)
        elif sent is not None:
            sql = " ".join(sent[1].split())
            if known and not known[0].sql.startswith("BEGIN"):
                yield list(known)
                known.clear()
            if sql.startswith(("BEGIN", "ROLLBACK")):
                known.clear()
            known.append(Statement(sql, {}))
            if sql == "COMMIT":
                yield list(known)
                known.clear()
    yield from (known for known in under_way.values() if known and not known[0].sql.startswith(("BEGIN", "ROLLBACK")))


def literals(transaction: Transaction) -> list[str]:
    """Every parameter of a transaction, once, in order of appearance."""
    return list(dict.fromkeys(literal for statement in transaction for literal in statement.values.values()))


def fresh_ids(transaction: Transaction, other: Transaction, known: Collection[str]) -> dict[str, str]:
    """Expressions for the ids that one transaction made up: UUIDs that are neither known nor in the other one."""
    made = [
        literal
        for literal in literals(transaction)
        if _is_uuid(literal) and literal not in known and literal not in literals(other)
    ]
    return {literal: f"md5('{number}/' || :n)::uuid" for number, literal in enumerate(made)}


def quoted(value: object) -> str:
    """A literal as the log shows it."""
    return "'" + str(value).replace("'", "''") + "'"


def one_of(values: Collection[str], index: str) -> str:
    """An expression for one of these UUIDs; `index` counts from 0."""
    return f"('{{{','.join(values)}}}'::uuid[])[1 + {index}]"


def script(transaction: Transaction, variables: Mapping[str, str], expressions: Mapping[str, str]) -> str:
    """A pgbench script (PostgreSQL documentation, pgbench, "Custom Scripts")."""
    lines = [f"\\set {name} {value}" for name, value in variables.items()]
    return "\n".join([*lines, *(f"{statement.filled(expressions)};" for statement in transaction)]) + "\n"


def _is_uuid(literal: str) -> bool:
    try:
        uuid.UUID(literal.strip("'"))
    except ValueError:
        return False
    return len(literal) == 38
