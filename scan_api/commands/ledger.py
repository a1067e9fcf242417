"""The books: their audit, a look into them, and what a group does with its members' points."""

import contextlib
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from codes.catalogue import group_named
from kit.clock import iso, system_clock
from kit.db import Session
from kit.errors import Invalid
from kit.files import replacing
from loyalty import ledger
from loyalty.ledger import AccountId, Entry, History, HistoryInvalid, LedgerReport, Policy, Purpose
from loyalty.ledger.history import REPORT_BYTES_MAX
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, out

PROGRESS_FROM_ENTRIES = 100_000
"""A smaller ledger is gone through before anybody could read a bar."""

ledger_app = typer.Typer(help="The books.", no_args_is_help=True)


class LedgerBroken(Invalid):
    code = "LedgerBroken"


@ledger_app.command("verify")
def verify(
    save: Annotated[
        Path | None, typer.Option(help="Write a report of the history here; keep it where nobody of here can write.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="Compare the history with an earlier report.")] = None,
    as_json: Json = False,
) -> None:
    """Compute links, balances, lots and holds anew from the entries. Exits with 1 and tells every contradiction."""

    async def work() -> dict[str, Any]:
        kept = _read(against) if against is not None else None
        settled = system_clock() - ledger.SETTLING
        moments = [settled, *([kept.before] if kept is not None else [])]
        async with terminal.workshop() as shop, shop.database.reading() as session:
            report = await _verified(session, moments if save or kept else [], as_json=as_json)
        faults = [*report.faults, *(kept.differences(report.histories[1]) if kept is not None else ())]
        if faults:
            raise LedgerBroken("; ".join(faults), hint="Stop paying (`fanxing campaign pause`) and find out why.")
        if save is not None:
            with replacing(save) as file:
                file.write(report.histories[0].write().encode())
        return {
            "accounts": report.accounts,
            "transfers": report.transfers,
            "entries": report.entries,
            **({"against": str(against), "agrees_before": iso(kept.before)} if kept is not None else {}),
            **({"saved": str(save), "saved_before": iso(settled)} if save is not None else {}),
        }

    terminal.run(work, as_json=as_json, show=_show_books)


async def _verified(session: Session, moments: Sequence[Any], *, as_json: bool) -> LedgerReport:
    entries = await ledger.count(session)
    with contextlib.ExitStack() as stack:
        heard: Callable[[int], None] = lambda _entries: None  # noqa: E731
        if entries >= PROGRESS_FROM_ENTRIES:
            heard = stack.enter_context(terminal.progress("Verifying", "entries", entries, as_json=as_json))
        return await ledger.verify(session, moments, heard)


def _read(path: Path) -> History:
    if path.stat().st_size > REPORT_BYTES_MAX:
        raise HistoryInvalid("not a report that `fanxing ledger verify --save` wrote")
    return History.read(path.read_text(encoding="utf-8"))


def _show_books(result: dict[str, Any]) -> None:
    out.print("The books balance: {accounts} accounts, {transfers} transfers, {entries} entries.".format(**result))
    if "against" in result:
        out.print("The history before {agrees_before} is that of {against}.".format(**result))
    if "saved" in result:
        out.print("The history before {saved_before} is in {saved}: keep it elsewhere.".format(**result))


@ledger_app.command("show")
def show(
    holder: Annotated[str | None, typer.Option(help="A holder's id, a member's for example.")] = None,
    transfer: Annotated[str | None, typer.Option(help="A transfer's id.")] = None,
    asset: Annotated[str | None, typer.Option(help="With --holder: the entries of his account of this asset.")] = None,
    purpose: Annotated[Purpose, typer.Option(help="What that account is for.")] = Purpose.AVAILABLE,
    after: Annotated[int, typer.Option(help="Entries that follow this number.", min=0)] = 0,
    limit: Annotated[int, typer.Option(help="Entries at most.", min=1, max=1_000)] = 50,
    as_json: Json = False,
) -> None:
    """The accounts of a holder, the entries of one of them, or the legs of a transfer."""
    if (holder is None) == (transfer is None):
        raise typer.BadParameter("name either --holder or --transfer")

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            if transfer is not None:
                return await _transfer(session, _uuid(transfer, "--transfer"))
            holder_id = _uuid(str(holder), "--holder")
            if asset is None:
                return await _accounts(session, holder_id)
            entries = await ledger.entries_of(session, AccountId(holder_id, asset, purpose), after, limit)
        more = entries[-1].seq if len(entries) == limit else None
        return {"holder": str(holder_id), "entries": [_entry(one) for one in entries], "after": more}

    terminal.run(work, as_json=as_json, show=_show_part)


async def _transfer(session: Session, transfer_id: uuid.UUID) -> dict[str, Any]:
    made = await ledger.transfer_of(session, transfer_id)
    legs = [{"holder": str(one.holder_id), **_entry(one)} for one in made.entries]
    return {"transfer": str(transfer_id), "reason": made.reason, "at": iso(made.at), "entries": legs}


async def _accounts(session: Session, holder_id: uuid.UUID) -> dict[str, Any]:
    return {
        "holder": str(holder_id),
        "accounts": [
            {"asset": one.asset, "purpose": one.purpose, "balance": one.balance, "entries": one.seq}
            for one in await ledger.accounts_of(session, holder_id)
        ],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "seq": entry.seq,
        "asset": entry.asset,
        "purpose": entry.purpose,
        "amount": entry.amount,
        "balance": entry.balance_after,
        "at": iso(entry.at),
        "transfer": str(entry.transfer_id),
        "link": entry.link.hex(),
    }


def _show_part(result: dict[str, Any]) -> None:
    rows = result.get("entries", result.get("accounts", []))
    terminal.fields({name: value for name, value in result.items() if not isinstance(value, list) and name != "after"})
    terminal.table(rows, "Nothing.")
    if result.get("after"):
        out.print(f"More: --after {result['after']}")


def _uuid(text: str, option: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise typer.BadParameter("an id is a UUID", param_hint=option) from None


@ledger_app.command("policy")
def policy(
    group: Annotated[str, typer.Option(help="The group's name.")],
    months: Annotated[
        int | None, typer.Option(help="Months that points live, to the end of the last; 0: for ever.")
    ] = None,
    debt: Annotated[int | None, typer.Option(help="Points that a refund may leave a member owing.")] = None,
    as_json: Json = False,
) -> None:
    """What a group does with its members' points; with --months or --debt, change it for points earned from now on."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop:
            opened = shop.database.reading if months is None and debt is None else shop.database.writing
            async with opened() as session:
                group_id = await group_named(session, group)
                before = await ledger.policy_of(session, group_id)
                now = Policy(
                    before.lifetime_months if months is None else months or None,
                    before.debt_max_points if debt is None else debt,
                )
                if now != before:
                    await ledger.set_policy(session, group_id, now)
        return {"group": group, "lifetime_months": now.lifetime_months, "debt_max_points": now.debt_max_points}

    terminal.run(work, as_json=as_json, show=_show_policy)


def _show_policy(result: dict[str, Any]) -> None:
    months = result["lifetime_months"]
    lives = "for ever" if months is None else f"{months} months, to the end of the last"
    out.print(f"Points of {result['group']} live {lives}; a refund leaves at most {result['debt_max_points']} owing.")


@ledger_app.command("expire")
def expire(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what is due, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Release holds whose time is over, and take off points that ran out."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop:
            if dry_run:
                async with shop.database.reading() as session:
                    due = await ledger.count_due(session, system_clock())
                return {"dry_run": True, "holds": due.holds, "members": due.lots}
            done = await ledger.sweep(shop.database, system_clock)
        return {"holds": done.holds, "members": done.lots}

    terminal.run(work, as_json=as_json, show=_show_expired)


def _show_expired(result: dict[str, Any]) -> None:
    done = "would be released" if result.get("dry_run") else "were released"
    out.print(f"{result['holds']} holds {done}; points of {result['members']} members ran out.")
