"""The `fanxing fulfilment` command: what an operator sees of orders, and what he does to them."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from kit import vault as vaults
from kit.db import Database
from loyalty import fulfilment
from loyalty.fulfilment import Attention, Report, Teller, Word
from loyalty.ledger import Purpose
from tests.loyalty.fulfilment_world import DAY, FUNDS, NOW, MovingClock, World
from tests.loyalty.test_fulfilment_reconciliation import line, statement
from tests.scan_api.test_commands import Terminal

# What a command does, the domain does; that is tested on both.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

MEMBER = uuid.UUID(int=1)


@pytest.fixture
def terminal(tmp_path: Path, database_url: str) -> Terminal:
    return Terminal(tmp_path / "home", database_url)


@pytest.fixture
async def world(database: Database) -> World:
    """Two orders, the first of which somebody has to look at."""
    made = World(database, vaults.Vault(vaults.new_key()), MovingClock(NOW))
    await made.fund()
    for _ in range(2):
        await made.place(MEMBER)
    await tell(made, made.order_ids[0], Word.SENT, Word.NO_ANSWER)
    async with database.writing() as session:
        await fulfilment.flag(session, await fulfilment.find(session, made.order_ids[0]), Attention.NO_END)
    return made


async def tell(world: World, order_id: uuid.UUID, *words: Word) -> None:
    async with world.database.writing() as session:
        for word in words:
            await fulfilment.take(session, MEMBER, order_id, Report(word, Teller.WORKER), world.clock())


async def ask(terminal: Terminal, said: str) -> Any:
    return await asyncio.to_thread(terminal.ask, f"fulfilment {said}")


async def refusal(terminal: Terminal, said: str) -> str:
    return await asyncio.to_thread(terminal.refusal, f"fulfilment {said}")


async def test_orders_are_listed_by_state_and_by_need(terminal: Terminal, world: World) -> None:
    one, other = map(str, world.order_ids)
    assert [order["order_id"] for order in (await ask(terminal, "list"))["orders"]] == sorted([one, other])
    [needy] = (await ask(terminal, "list --attention"))["orders"]
    assert (needy["order_id"], needy["state"], needy["attention"], needy["kind"]) == (one, "unknown", "no_end", "data")
    assert [order["order_id"] for order in (await ask(terminal, "list --state created"))["orders"]] == [other]
    assert (await ask(terminal, "list --state failed"))["orders"] == []
    shown = await asyncio.to_thread(terminal.run, "fulfilment list")
    assert one in shown.stdout


async def test_an_order_is_shown_with_its_steps(terminal: Terminal, world: World) -> None:
    told = await ask(terminal, f"show {world.order_ids[0]}")
    assert [(step["from"], step["to"], step["by"]) for step in told["steps"]] == [
        ("created", "submitted", "worker"),
        ("submitted", "unknown", "worker"),
    ]
    assert await refusal(terminal, f"show {uuid.uuid4()}") == "FulfilmentOrderUnknown"
    assert "submitted" in (await asyncio.to_thread(terminal.run, f"fulfilment show {world.order_ids[0]}")).stdout


async def test_an_order_ends_as_the_operator_was_told(terminal: Terminal, world: World) -> None:
    [order_id, _other] = world.order_ids
    said = f"end {order_id} --as completed --reason 'Ms Li of the carrier, today'"
    assert (await ask(terminal, said))["ended"] is False
    assert (await world.order(order_id)).state == "unknown"
    assert (await ask(terminal, f"{said} --yes"))["ended"] is True
    assert (await world.path(order_id))[-1] == "completed by operator"
    assert (await world.order(order_id)).attention is None
    assert (await world.totals())[Purpose.DELIVERED] == 5
    assert await refusal(terminal, f"{said} --yes") == "EndingImpossible"
    assert await refusal(terminal, f"end {order_id} --as pending --reason x --yes") == "EndingImpossible"


async def test_an_order_that_failed_is_placed_anew(terminal: Terminal, world: World) -> None:
    [order_id, _other] = world.order_ids
    assert await refusal(terminal, f"retry {order_id} --yes") == "OrderNotRepeatable"
    await tell(world, order_id, Word.FAILED)
    assert (await ask(terminal, f"retry {order_id}"))["placed"] is None
    placed = (await ask(terminal, f"retry {order_id} --yes"))["placed"]
    assert (await ask(terminal, f"retry {order_id} --yes"))["placed"] == placed
    assert (await world.order(uuid.UUID(placed))).state == "created"
    assert (await world.totals())[Purpose.BUDGET] == FUNDS - 10


async def test_an_order_is_asked_for_now_and_taken_off_the_list(terminal: Terminal, world: World) -> None:
    one, other = world.order_ids
    assert await ask(terminal, f"ask {one}") == {"order_id": str(one), "due": True}
    assert (await ask(terminal, "list --attention"))["orders"] == []
    await tell(world, other, Word.FAILED)
    assert await refusal(terminal, f"ask {other}") == "OrderNotOpen"
    async with world.database.writing() as session:
        await fulfilment.flag(session, await fulfilment.find(session, other), Attention.LATE_COMPLETION)
    assert (await ask(terminal, f"dismiss {other}"))["dismissed"] == "late_completion"
    assert (await ask(terminal, "list --attention"))["orders"] == []


async def test_a_statement_in_a_file_is_reconciled(terminal: Terminal, world: World, tmp_path: Path) -> None:
    one, other = world.order_ids
    path = tmp_path / "statement.ndjson"
    path.write_text("\n".join(statement(line(one), line(other, amount=50))), encoding="utf-8")
    said = f"fulfilment reconcile --date {DAY} --statement {path}"
    looked = await asyncio.to_thread(terminal.run, f"{said} --dry-run --json")
    told = json.loads(looked.stdout)
    assert (looked.exit_code, told["dry_run"], told["clean"], told["repaired"]) == (1, True, False, [])
    assert told["equation"].startswith("statement 55 = ledger 0 + ")
    assert {found["difference"]: found["amount"] for found in told["differences"]} == {
        "state_differs": 5,
        "amount_differs": 50,
    }
    assert (await world.order(one)).state == "unknown"
    done = await asyncio.to_thread(terminal.run, said)
    assert done.exit_code == 1
    assert "statement 55 = ledger 5 + 50 amount_differs" in done.stdout
    assert (await world.order(one)).state == "completed"
    path.write_text("\n".join(statement(line(one))), encoding="utf-8")
    assert (await ask(terminal, f"reconcile --date {DAY} --statement {path}"))["clean"] is True


async def test_a_statement_needs_a_provider_or_a_file(terminal: Terminal, world: World, tmp_path: Path) -> None:
    assert await refusal(terminal, f"reconcile --date {DAY}") == "ProviderNotConfigured"
    assert await refusal(terminal, f"reconcile --date {DAY} --statement {tmp_path / 'missing'}") == "FileRefused"
    terminal.settings["FANXING_CARRIER_URL"] = "http://127.0.0.1:9"
    assert await refusal(terminal, "reconcile") == "StatementUnavailable"
