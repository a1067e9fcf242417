"""Whatever is done to a brand's house, the database holds what plain Python says: the machine, small and long."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from kit.db import Database
from tests.simulation.choices import DrawnChoices
from tests.simulation.house import House
from tests.simulation.inline_sqlite import open_inline
from tests.simulation.machine import RULES, furnished, step, walk, walk_on_sqlite
from tests.simulation.rules import Rule
from tests.simulation.seeded import seeded

SLOW_SEEDS, SLOW_STEPS = 50, 10_000
POSTGRES_STEPS = 100
SMALL = settings(
    max_examples=4,
    stateful_step_count=25,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def machine_on(new_database: Callable[[], Database]) -> type[RuleBasedStateMachine]:
    """The machine as hypothesis drives it, each run in a database of its own. Hypothesis weighs the rules itself."""

    class Machine(RuleBasedStateMachine):
        house: House

        def __init__(self) -> None:
            super().__init__()
            self.runner = asyncio.Runner()
            self.house = self.runner.run(furnished(new_database()))

        def teardown(self) -> None:
            try:
                self.runner.run(self.house.audit())
            finally:
                self.runner.run(self.house.database.close())
                self.runner.close()

    def doing(one: Rule) -> Any:
        @rule(data=st.data())
        def work(self: Any, data: st.DataObject) -> None:
            self.runner.run(step(self.house, one, DrawnChoices(data)))
            self.runner.run(self.house.look())

        work.__name__ = one.name
        return work

    for one in RULES:
        setattr(Machine, one.name, doing(one))
    return Machine


def test_the_house_does_what_the_books_say(tmp_path: Path, sqlite_template: Path) -> None:
    numbers = iter(range(10_000))

    def new_database() -> Database:
        return open_inline(tmp_path / f"{next(numbers)}.db", sqlite_template)

    with seeded("hypothesis"):
        run_state_machine_as_test(machine_on(new_database), settings=SMALL)


def test_so_it_does_after_two_hundred_steps(tmp_path: Path, sqlite_template: Path) -> None:
    with seeded(0) as chance:
        asyncio.run(walk_on_sqlite(tmp_path / "house.db", sqlite_template, chance, 200))


async def test_so_does_the_one_on_postgresql(postgres_server: Any, postgres_tables: str) -> None:
    database = Database(postgres_server.url(postgres_tables))
    try:
        with seeded("postgresql") as chance:
            await walk(await furnished(database), chance, POSTGRES_STEPS)
    finally:
        await database.close()
        postgres_server.wipe(postgres_tables)


def test_a_walk_of_one_seed_is_always_the_same(tmp_path: Path, sqlite_template: Path) -> None:
    books = []
    for number in range(2):
        with seeded("twice") as chance:
            followed = asyncio.run(walk_on_sqlite(tmp_path / f"{number}.db", sqlite_template, chance, 40))
        books.append((followed, chance.random()))
    assert books[0] == books[1]


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("seed", range(SLOW_SEEDS))
def test_so_it_does_after_ten_thousand_steps(seed: int, tmp_path: Path, sqlite_template: Path) -> None:
    started = time.monotonic()
    with seeded(seed) as chance:
        asyncio.run(walk_on_sqlite(tmp_path / "house.db", sqlite_template, chance, SLOW_STEPS))
    print(f"\nseed {seed}: {SLOW_STEPS / (time.monotonic() - started):.0f} steps/s")
