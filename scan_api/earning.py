"""What has to be done for earning when nobody asks: birthdays, red packets that are over, counts of days long gone."""

import contextlib
import uuid
from dataclasses import dataclass
from datetime import datetime

from kit.db import Database
from kit.vault import Vault
from loyalty import allowances, birthdays, prizes, red_packets
from loyalty.programs import CardNeeded, Program, ProgramNotOpen, ProgramUnknown

PACKETS_PER_STEP_MAX = 100
_NOT_OPEN = (CardNeeded, ProgramNotOpen, ProgramUnknown)


@dataclass(frozen=True)
class Swept:
    """What a sweep did. `budgets_used_up`: birthday programs that had nothing left for somebody, of budget or stock."""

    birthday_gifts: int
    budgets_used_up: int
    packets_expired: int
    counts_forgotten: int


async def greet(database: Database, vault: Vault, member_id: uuid.UUID, now: datetime) -> int:
    """Give a member who comes on his birthday the gifts that the sweep has not given yet, as far as there are any."""
    async with database.reading() as session:
        due = await birthdays.due(session, vault, member_id, now)
    gifts = 0
    for program in due:
        with contextlib.suppress(*_NOT_OPEN, *prizes.NOT_GIVEN):
            gifts += await _give(database, vault, program, member_id, now)
    return gifts


async def sweep(database: Database, vault: Vault, now: datetime) -> Swept:
    """Do what is due. It may run at any time, as often as one likes, and in several processes at once."""
    gifts = used_up = packets = 0
    async with database.reading() as session:
        running = await birthdays.running(session, now)
    for program in running:
        given, is_used_up = await _celebrate(database, vault, program, now)
        gifts, used_up = gifts + given, used_up + is_used_up
    while True:
        async with database.writing() as session:
            expired = await red_packets.expire_due(session, now, PACKETS_PER_STEP_MAX)
        packets += expired.packets
        if expired.packets < PACKETS_PER_STEP_MAX:
            break
    async with database.writing() as session:
        forgotten = await allowances.sweep(session, now)
    return Swept(gifts, used_up, packets, forgotten)


async def _celebrate(database: Database, vault: Vault, program: Program, now: datetime) -> tuple[int, bool]:
    """How many gifts were given, and whether they ended before the members did."""
    gifts, after = 0, None
    while True:
        async with database.reading() as session:
            born = await birthdays.born_today(session, vault, program, now, after)
        for member_id in born:
            try:
                gifts += await _give(database, vault, program, member_id, now)
            except prizes.USED_UP:
                return gifts, True
            except (*_NOT_OPEN, *prizes.NOT_GIVEN):
                continue  # he gets none: others may
        if len(born) < birthdays.MEMBERS_PER_STEP_MAX:
            return gifts, False
        after = born[-1]


async def _give(database: Database, vault: Vault, program: Program, member_id: uuid.UUID, now: datetime) -> bool:
    async with database.writing() as session:
        given = await birthdays.give(session, vault, program_id=program.program_id, member_id=member_id, now=now)
    return given is not None
