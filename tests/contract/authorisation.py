"""The authorisation matrix: the table in authorisation.toml, the routes of the service, and the page made of both.

.venv/bin/python -m tests.contract.authorisation > docs/authorisation.md
"""

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fastapi.routing import iter_route_contexts

from scan_api.app import _routed

TABLE = Path(__file__).with_name("authorisation.toml")
DOCUMENT = Path(__file__).parents[2] / "docs" / "authorisation.md"


class Outcome(StrEnum):
    """What becomes of a request, as far as it depends on who asks."""

    ALLOWED = "allowed"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    HIDDEN = "hidden"
    SIGN_IN = "sign-in"


@dataclass(frozen=True)
class Rule:
    """What one route gives whom."""

    policy: str
    outcomes: Mapping[str, Outcome]
    """By caller."""
    answers: frozenset[str]
    """Codes of refusals, or statuses of pages, that the owner gets for a reason that is not authorisation."""
    but: str
    tells: str
    """A weakness that is known: in which way another's thing is told from one that is not there."""


@dataclass(frozen=True)
class Table:
    callers: Mapping[str, str]
    policies: Mapping[str, str]
    """What each says."""
    rules: Mapping[str, Rule]
    """By `METHOD /path`."""

    @property
    def cells(self) -> Iterator[tuple[str, str, Outcome]]:
        for route, rule in self.rules.items():
            for caller, outcome in rule.outcomes.items():
                yield route, caller, outcome


def routes() -> list[str]:
    """Every route of the service as `METHOD /path`, pages too."""
    return [
        f"{method} {context.path_format}"
        for context in iter_route_contexts(_routed(None).routes)
        for method in sorted(context.methods or {"WEBSOCKET"})
    ]


def read(text: str | None = None) -> Table:
    """The table. Raises KeyError and AssertionError where it contradicts itself."""
    told = tomllib.loads(TABLE.read_text(encoding="utf-8") if text is None else text)
    callers, groups = told["callers"], told["groups"]

    def expanded(names: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Callers, with how many groups lie around each."""
        for name in names:
            if name in groups:
                yield from ((one, depth + 1) for one, depth in expanded(groups[name]))
            else:
                assert name in callers, f"no caller is named {name}"
                yield name, 0

    outcomes = {}
    for policy, says in told["policies"].items():
        chosen = dict.fromkeys(callers, (Outcome(says["else"]), 99))
        for outcome in Outcome:
            for caller, depth in expanded(says.get(outcome, [])):
                # Who is named himself is not meant by the groups that he is of.
                if depth < chosen[caller][1]:
                    chosen[caller] = (outcome, depth)
        outcomes[policy] = {caller: outcome for caller, (outcome, _depth) in chosen.items()}
    rules = {}
    for route, given in told["routes"].items():
        rule = {"policy": given} if isinstance(given, str) else given
        also = {caller: Outcome(outcome) for caller, outcome in rule.get("callers", {}).items()}
        rules[route] = Rule(
            rule["policy"],
            outcomes[rule["policy"]] | also,
            frozenset(rule.get("answers", ())),
            rule.get("but", ""),
            rule.get("tells", ""),
        )
    return Table(callers, {name: says["says"] for name, says in told["policies"].items()}, rules)


def page(table: Table) -> str:
    """docs/authorisation.md."""
    lines = [_HEAD, "## Callers", "", "| caller | who that is |", "|---|---|"]
    lines += [f"| {name} | {says} |" for name, says in table.callers.items()]
    lines += ["", "## Policies", "", "| policy | who may | allowed | refused (403) | hidden (404) | everybody else |"]
    lines += ["|---|---|---|---|---|---|"]
    first = {rule.policy: rule for rule in reversed(table.rules.values())}
    for policy, says in table.policies.items():
        of = {outcome: _named(first[policy], outcome, len(table.callers)) for outcome in Outcome}
        rest = "asked to sign in" if of[Outcome.SIGN_IN] else "401" if of[Outcome.UNKNOWN] else ""
        columns = [of[outcome] for outcome in (Outcome.ALLOWED, Outcome.REFUSED, Outcome.HIDDEN)]
        lines.append(" | ".join([f"| {policy}", says, *columns, rest]) + " |")
    lines += ["", "## Routes", "", "| route | policy | besides |", "|---|---|---|"]
    for route, rule in sorted(table.rules.items(), key=lambda item: tuple(reversed(item[0].split(" ", 1)))):
        besides = "; ".join(filter(None, (rule.but, rule.tells and f"known weakness: {rule.tells}")))
        lines.append(f"| `{route}` | {rule.policy} | {besides} |")
    counted = Counter(outcome for _route, _caller, outcome in table.cells)
    lines += ["", f"{len(table.rules)} routes, {len(table.callers)} callers, {counted.total():,} cells: "]
    lines[-1] += ", ".join(f"{number:,} {outcome}" for outcome, number in sorted(counted.items())) + "."
    return "\n".join(lines) + "\n"


def _named(rule: Rule, outcome: Outcome, callers: int) -> str:
    names = [caller for caller, one in rule.outcomes.items() if one is outcome]
    return "everybody" if len(names) == callers else ", ".join(names)


_HEAD = """# Who may call what

This page is made from `tests/contract/authorisation.toml` by `python -m tests.contract.authorisation`, and a test asks
the service every cell of it: each route, by each caller, for things of the member Mei and of the brand Star Cream, and
for things that are not there. Refusals change nothing, and tell nothing: another's thing is answered for as if it were
not there.

    .venv/bin/python -m pytest -q tests/contract/test_authorisation.py -m "slow or not slow"

Who adds a route adds it to the table, and what to ask it to `tests/contract/authorisation_requests.py`; till then the
test fails.
"""


if __name__ == "__main__":
    print(page(read()), end="")
