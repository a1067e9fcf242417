"""Orders of mobile data and cash, as far as an operator has to see to them."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from kit import logging, outbox
from kit.clock import iso, system_clock
from kit.errors import Conflict, Invalid, NotFound
from loyalty import fulfilment
from loyalty.fulfilment import (
    PROVIDER_OF,
    Effect,
    Order,
    OrderKind,
    OrderState,
    OrderStep,
    Report,
    Teller,
    Word,
)
from loyalty.fulfilment.providers import HttpProvider
from loyalty.fulfilment.reconciliation import Result
from loyalty.fulfilment.steps import day_of
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, Workshop, out

fulfilment_app = typer.Typer(help="Orders of mobile data and cash from providers.", no_args_is_help=True)

_READ_CHARACTERS = 1 << 20
_ENDINGS = {state.value: Word(state.value) for state in (OrderState.COMPLETED, OrderState.REVERSED, OrderState.FAILED)}
OrderId = Annotated[uuid.UUID, typer.Argument(help="The order's id.")]


class ProviderNotConfigured(NotFound):
    """No settings name this provider."""

    code = "ProviderNotConfigured"


class OrderNotOpen(Conflict):
    """The order has come to an end, or is being worked on by nobody."""

    code = "OrderNotOpen"


class EndingImpossible(Invalid):
    """An order in this state cannot end so."""

    code = "EndingImpossible"


@asynccontextmanager
async def _workshop() -> AsyncIterator[Workshop]:
    # Orders that move are logged; an answer for a machine must stand alone on standard output.
    logging.configure("WARNING")
    async with terminal.workshop() as shop:
        yield shop


@fulfilment_app.command("list")
def list_orders(
    state: Annotated[list[OrderState] | None, typer.Option(help="Only in this state; may be given again.")] = None,
    attention: Annotated[bool, typer.Option("--attention", help="Only those that an operator has to look at.")] = False,
    as_json: Json = False,
) -> None:
    """Orders, oldest first, at most 200. Without options those that are open."""

    async def work() -> dict[str, Any]:
        wanted = frozenset(state or ()) or (frozenset() if attention else fulfilment.OPEN)
        async with _workshop() as shop, shop.database.reading() as session:
            found = await fulfilment.listed(session, states=wanted, needing_attention=attention)
        return {"orders": [_about(order) for order in found]}

    terminal.run(work, as_json=as_json, show=lambda result: terminal.table(result["orders"], "No orders."))


@fulfilment_app.command("show")
def show(order_id: OrderId, as_json: Json = False) -> None:
    """An order with every step it took."""

    async def work() -> dict[str, Any]:
        async with _workshop() as shop, shop.database.reading() as session:
            order = await fulfilment.find(session, order_id)
            steps = await fulfilment.steps_of(session, order)
        return {**_about(order), "member_id": str(order.member_id), "steps": [_step(step) for step in steps]}

    terminal.run(work, as_json=as_json, show=_show_order)


@fulfilment_app.command("ask")
def ask(order_id: OrderId, as_json: Json = False) -> None:
    """Have the worker ask the provider about an open order now, also one that it had given up."""

    async def work() -> dict[str, Any]:
        async with _workshop() as shop, shop.database.writing() as session:
            order = await fulfilment.find(session, order_id)
            if not await outbox.wake(session, order.outbox_key, order_id, system_clock()):
                raise OrderNotOpen("this order has come to an end", hint="`fanxing fulfilment show` tells how.")
            await fulfilment.flag(session, order, None)
        return {"order_id": str(order_id), "due": True}

    terminal.run(work, as_json=as_json, show=lambda result: out.print(f"Order {result['order_id']} is due now."))


@fulfilment_app.command("retry")
def retry(
    order_id: OrderId,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without, only look.")] = False,
    as_json: Json = False,
) -> None:
    """Place a new order for one that failed or was reversed, to the member's present phone number."""

    async def work() -> dict[str, Any]:
        async with _workshop() as shop, shop.database.writing() as session:
            order = await fulfilment.find(session, order_id)
            placed = await fulfilment.repeat(session, order, system_clock()) if yes else None
            return {**_about(order), "placed": str(placed.order_id) if placed else None}

    terminal.run(work, as_json=as_json, show=_show_retry)


@fulfilment_app.command("end")
def end(
    order_id: OrderId,
    ending: Annotated[OrderState, typer.Option("--as", help="completed, reversed or failed.")],
    reason: Annotated[str, typer.Option(help="Who at the provider said so, and when.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without, only look.")] = False,
    as_json: Json = False,
) -> None:
    """End an order as the provider told you by other means; its value moves accordingly."""

    async def work() -> dict[str, Any]:
        if ending.value not in _ENDINGS:
            raise EndingImpossible("an order ends completed, reversed or failed")
        async with _workshop() as shop, shop.database.writing() as session:
            order = await fulfilment.find(session, order_id)
            if not yes:
                return {**_about(order), "ended": False}
            report = Report(_ENDINGS[ending.value], Teller.OPERATOR, reason=reason)
            done = await fulfilment.take(session, order.member_id, order_id, report, system_clock())
            if done.effect is not Effect.MOVED:
                raise EndingImpossible(f"an order that is {done.before} does not become {ending}")
            await fulfilment.flag(session, done.order, None)
            return {**_about(done.order), "ended": True}

    terminal.run(work, as_json=as_json, show=_show_end)


@fulfilment_app.command("dismiss")
def dismiss(order_id: OrderId, as_json: Json = False) -> None:
    """Take an order off the operator's list: it was looked at."""

    async def work() -> dict[str, Any]:
        async with _workshop() as shop, shop.database.writing() as session:
            order = await fulfilment.find(session, order_id)
            await fulfilment.flag(session, order, None)
        return {"order_id": str(order_id), "dismissed": order.attention}

    terminal.run(work, as_json=as_json, show=lambda result: out.print(f"Order {result['order_id']} is off the list."))


@fulfilment_app.command("reconcile")
def reconcile(
    date: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Default: yesterday in China.")] = None,
    provider: Annotated[str, typer.Option(help="carrier or cash.")] = PROVIDER_OF[OrderKind.DATA],
    statement: Annotated[Path | None, typer.Option(help="Read it from this file instead of fetching it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Compare a provider's statement of a day with orders and ledger, and repair what is safe to repair.

    Exits with 1 when something is left for an operator to look at.
    """

    clean = []

    async def work() -> dict[str, Any]:
        day = date.date() if date else day_of(datetime.now(UTC) - timedelta(days=1))
        async with AsyncExitStack() as stack:
            shop = await stack.enter_async_context(_workshop())
            client = await stack.enter_async_context(httpx2.AsyncClient())
            asked = _provider(shop, client, provider, needed=statement is None)
            if statement is not None:
                lines = _lines_of(statement)
            else:
                assert asked is not None
                lines = await stack.enter_async_context(asked.statement(day))
            result = await fulfilment.reconcile(
                shop.database, provider, asked, day, lines, system_clock, dry_run=dry_run
            )
        clean.append(result.clean)
        return _result(result, dry_run=dry_run)

    terminal.run(work, as_json=as_json, show=_show_result)
    if not all(clean):
        raise typer.Exit(1)


def _provider(shop: Workshop, client: httpx2.AsyncClient, name: str, *, needed: bool) -> HttpProvider | None:
    found = fulfilment.http_providers(shop.settings, client).get(name)
    if found is None and needed:
        raise ProviderNotConfigured(
            f"no settings name the provider {name}", hint="Set FANXING_CARRIER_URL or FANXING_CASH_URL."
        )
    return found


async def _lines_of(path: Path) -> AsyncIterator[str]:
    with await asyncio.to_thread(path.open, encoding="utf-8") as file:
        while batch := await asyncio.to_thread(file.readlines, _READ_CHARACTERS):
            for line in batch:
                yield line


def _about(order: Order) -> dict[str, Any]:
    return {
        "order_id": str(order.order_id),
        "kind": OrderKind(order.kind).name.lower(),
        "amount": order.amount,
        "provider": order.provider,
        "state": order.state,
        "attention": order.attention,
        "attempts": order.attempts,
        "created_at": iso(order.created_at),
        "closed_at": iso(order.closed_at) if order.closed_at else None,
        "reason": order.reason,
        "replaced_by": str(order.replaced_by) if order.replaced_by else None,
    }


def _step(step: OrderStep) -> dict[str, Any]:
    return {
        "at": iso(step.at),
        "from": step.from_state,
        "to": step.to_state,
        "by": step.by,
        "revision": step.revision,
        "reference": step.provider_ref,
        "reason": step.reason,
    }


def _show_order(result: dict[str, Any]) -> None:
    terminal.fields({name: value for name, value in result.items() if name != "steps"})
    out.print()
    terminal.table(result["steps"], "Not yet sent.")


def _show_retry(result: dict[str, Any]) -> None:
    if result["placed"]:
        out.print(f"Order {result['placed']} is placed for {result['order_id']}.")
    else:
        terminal.fields(result)
        out.print("Nothing was changed; say --yes to place it anew.")


def _show_end(result: dict[str, Any]) -> None:
    terminal.fields({name: value for name, value in result.items() if name != "ended"})
    if not result["ended"]:
        out.print("Nothing was changed; say --yes to end it.")


def _result(result: Result, *, dry_run: bool) -> dict[str, Any]:
    return {
        "provider": result.provider,
        "day": result.day.isoformat(),
        "dry_run": dry_run,
        "lines": result.lines,
        "matched": result.matched,
        "repaired": [found.as_json() for found in result.repaired],
        "differences": [found.as_json() for found in result.differences],
        "still_open": result.still_open,
        "statement_total": result.statement_total,
        "ledger_total": result.ledger_total,
        "equation": result.equation,
        "balanced": result.balanced,
        "clean": result.clean,
    }


def _show_result(result: dict[str, Any]) -> None:
    out.print(
        f"Statement of {result['provider']} for {result['day']}: {result['lines']} lines, {result['matched']} match."
    )
    if result["repaired"]:
        out.print(f"Repaired: {len(result['repaired'])}")
        terminal.table(result["repaired"], "")
    if result["differences"]:
        out.print("For the operator, see docs/runbooks/fulfilment.md:")
        terminal.table(result["differences"], "")
    if result["still_open"]:
        out.print(f"Orders without an end: {result['still_open']}")
    out.print(result["equation"])
