"""The machine: the house, and any number of steps by rules, each checked."""

import random
from collections import Counter
from datetime import timedelta
from pathlib import Path

from kit.db import Database
from kit.vault import Vault
from tests.simulation import rules_brand, rules_giving, rules_members, rules_points
from tests.simulation.choices import Choices, SeededChoices
from tests.simulation.house import House
from tests.simulation.inline_sqlite import open_inline
from tests.simulation.rules import Rule, rules_in

RULES = rules_in(rules_points, rules_giving, rules_brand, rules_members)
LOOK_EVERY, AUDIT_EVERY = 20, 2_500
"""Steps between two comparisons of every balance, and between two audits of every entry."""
A_MOMENT = timedelta(milliseconds=1)
VAULT_KEY = bytes(range(32))


async def furnished(database: Database) -> House:
    """A house in an empty database."""
    house = House(database, Vault(VAULT_KEY))
    await house.open()
    return house


async def step(house: House, rule: Rule, choose: Choices) -> None:
    """One step, and a glance at what it left."""
    house.now += A_MOMENT
    await rule.work(house, choose)
    await house.glance()


async def walk(house: House, chance: random.Random, steps: int) -> Counter[str]:
    """So many steps by chance; how often each rule was followed. What goes wrong tells the step and the last rules."""
    weights = [rule.weight for rule in RULES]
    choose, followed, names = SeededChoices(chance), Counter[str](), list[str]()
    for number in range(1, steps + 1):
        [rule] = chance.choices(RULES, weights)
        names = [*names[-9:], rule.name]
        try:
            await step(house, rule, choose)
            if number % LOOK_EVERY == 0:
                await house.look()
            if number % AUDIT_EVERY == 0 or number == steps:
                await house.audit()
        except BaseException as error:
            error.add_note(f"in step {number}; the last rules: {', '.join(names)}")
            raise
        followed[rule.name] += 1
    return followed


async def walk_on_sqlite(path: Path, template: Path, chance: random.Random, steps: int) -> Counter[str]:
    """The same in a new file."""
    database = open_inline(path, template)
    try:
        return await walk(await furnished(database), chance, steps)
    finally:
        await database.close()
