"""Who may call what: every route, every caller, his own things and another's, as authorisation.toml says."""

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

import pytest
import structlog

from tests.contract import authorisation
from tests.contract.asking import Answer, Proof, Request, session_of, signature_of
from tests.contract.authorisation import Outcome, Table
from tests.contract.authorisation_requests import ASKS, Ask
from tests.contract.belongings import Belongings, Ghosts
from tests.contract.inhabited import FAR_BRAND, World
from tests.stand import BRAND

STATUS = {Outcome.UNKNOWN: 401, Outcome.REFUSED: 403, Outcome.HIDDEN: 404, Outcome.SIGN_IN: 200}
OWNERS = frozenset(
    {"member", "brand", "narrow brand", "shop", "crm", "logistics", "regulator", "partner", "device", "carrier"}
)
"""Who may be told of Mei's and Star Cream's things. Tills of her group know Mei as well."""
KNOW_MEI = OWNERS | {"sister shop"}
COUNTED = {
    "package_fetch": "who tries a fetch code is on record",
    "code_window": "what a till asks is counted",
    "regulator_access": "looks, also those that were refused, are on record",
}
"""Tables that a refusal may change."""
SHARE = 37
"""Of the cells where one caller is like another, one in so many is asked in `make test`; all in `make test-slow`."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without a log line for each of thousands of requests."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


@dataclass
class Matrix:
    """Cells, asked one after the other; `faults` are those that are not as the table says."""

    world: World
    table: Table
    cells: Sequence[tuple[str, str, Outcome]]
    faults: list[str] = field(default_factory=list)
    telling: set[str] = field(default_factory=set)
    """Routes that answer for another's thing otherwise than for none."""
    asked: int = 0

    async def refusals(self) -> None:
        """Whoever may not gets his refusal, the same whether or not there is what he asks for; nothing changes."""
        things = Belongings(self.world)
        real = {route: await ASKS.get(route, Ask()).request(route, things) for route in self.table.rules}
        ghosts = {route: await ASKS.get(route, Ask()).request(route, Ghosts(things)) for route in self.table.rules}
        before = self.world.fingerprints()
        for route, caller, outcome in self.cells:
            if outcome is Outcome.ALLOWED:
                continue
            answer = await self._ask(real[route], caller)
            told = f"{answer.status} {answer.code}"
            if answer.status != STATUS[outcome]:
                self._fault(route, caller, outcome, told)
            if outcome is Outcome.SIGN_IN and b'action="/web/sign-in"' not in answer.body:
                self._fault(route, caller, outcome, "another page")
            self._must_not_tell(route, caller, real[route], answer, things.secrets)
            # Who is not known at all is refused before anything is looked for: one of them stands for all.
            if outcome is not Outcome.UNKNOWN or caller == "nobody":
                ghost = await self._ask(ghosts[route], caller)
                if shape(ghost) == shape(answer):
                    continue
                self.telling.add(route)
                if not self.table.rules[route].tells:
                    self._fault(route, caller, outcome, f"{told}, and {ghost.status} {ghost.code} when it is not there")
        after = self.world.fingerprints()
        changed = {name for name in after if after[name] != before[name]} - COUNTED.keys()
        if changed:
            self.faults.append(f"refusals changed {', '.join(sorted(changed))}")

    async def grants(self) -> None:
        """Whoever may is granted it, with things that are as fresh as their owner's first asking."""
        things = Belongings(self.world)
        for route, caller, outcome in self.cells:
            if outcome is not Outcome.ALLOWED:
                continue
            ask = ASKS.get(route, Ask())
            request = await ask.request(route, things)
            answer = await self._ask(request, await self._alone(caller) if ask.own else caller, route)
            allowed = self.table.rules[route].answers
            if answer.status >= 400 and not {answer.code, str(answer.status)} & allowed:
                told = answer.body.decode()[:200] if answer.code else ""
                self._fault(route, caller, outcome, f"{answer.status} {answer.code} {told}")
            if caller not in KNOW_MEI:
                self._must_not_tell(route, caller, request, answer, things.secrets)
            if not route.startswith(("GET", "HEAD")):
                things.forget_used()

    async def _alone(self, caller: str) -> str | Proof:
        """A member of the same group who asks nothing else, where a session may end."""
        groups = {"member": BRAND, "fellow": BRAND, "stranger": FAR_BRAND}
        return session_of((await self.world.enrol(groups[caller])).token) if caller in groups else caller

    async def _ask(self, request: Request, caller: str | Proof, route: str = "") -> Answer:
        self.asked += 1
        if route == "POST /v1/devices" and caller == "device":
            caller = signature_of(self.world.new_device)
        return await self.world.ask(request, caller)

    def _must_not_tell(self, route: str, caller: str, request: Request, answer: Answer, secrets: set[str]) -> None:
        sent = unquote_plus(f"{request.target} {request.body.decode()}")
        for secret in secrets:
            if secret.encode() in answer.body and secret not in sent:
                self._fault(route, caller, None, f"told of {secret}")

    def _fault(self, route: str, caller: str, expected: Outcome | None, got: str) -> None:
        self.faults.append(f"{route} as {caller}: {f'{expected} expected, ' if expected else ''}{got}")


def shape(answer: Answer) -> tuple[int, bytes]:
    """An answer without ids and numbers of orders: two that differ by them alone tell nothing."""
    ids = rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9]{5}\b"
    return answer.status, re.sub(ids, b"ID", answer.body)


def test_every_route_stands_in_the_table() -> None:
    table, routes = authorisation.read(), authorisation.routes()
    new = sorted(set(routes) - table.rules.keys())
    assert not new, (
        f"no policy for {new}: add them under [routes] of {authorisation.TABLE.name}, what to ask them to ASKS in "
        "authorisation_requests.py, and make docs/authorisation.md anew with `python -m tests.contract.authorisation`"
    )
    assert not sorted(table.rules.keys() - set(routes)), "routes that are gone"
    assert not sorted(ASKS.keys() - table.rules.keys()), "requests of routes that are gone"


def test_the_page_says_what_the_table_says() -> None:
    page = authorisation.page(authorisation.read())
    assert authorisation.DOCUMENT.read_text(encoding="utf-8") == page, "run `python -m tests.contract.authorisation`"


def chosen(table: Table, share: int) -> list[tuple[str, str, Outcome]]:
    """The cells to ask. Where nobody of a caller's kind is asked for, and where all are let in, one in `share`."""
    cells = []
    for number, (route, caller, outcome) in enumerate(table.cells):
        rule = table.rules[route]
        kinds = {one.split()[-1] for one, its in rule.outcomes.items() if its is Outcome.ALLOWED}
        dull = rule.policy == "everybody" or caller.split()[-1] not in kinds
        if not dull or caller == "nobody" or number % share == 0:
            cells.append((route, caller, outcome))
    return cells


@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("share", [SHARE, pytest.param(1, marks=pytest.mark.slow)])
def test_every_cell_is_as_the_table_says(world: World, share: int) -> None:
    table = authorisation.read()
    matrix = Matrix(world, table, chosen(table, share))
    world.run(world.publish_log())
    with quiet():
        world.run(matrix.refusals())
        world.run(matrix.grants())
    assert not matrix.faults, "\n" + "\n".join(matrix.faults)
    known = {route for route, rule in table.rules.items() if rule.tells}
    assert known <= matrix.telling, f"tells no more, so the table should say so: {known - matrix.telling}"
