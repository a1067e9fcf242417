"""Members, as far as an operator may touch them: signing out, erasing, merging, parting, and their documents."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

import typer
from sqlmodel import col, select

from codes.catalogue import brand_named
from kit.clock import iso, system_clock
from kit.db import Database, Session
from kit.ids import new_id
from kit.vault import Vault
from loyalty import consents, erasure, member_export, members, merges, sign_in
from loyalty.consents import NewDocument
from loyalty.merges import Approval, Merged, NewMerge
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, out

member = typer.Typer(help="Members.", no_args_is_help=True)
consent = typer.Typer(help="Documents that members agree to, in versions.", no_args_is_help=True)

Slug = Annotated[str, typer.Option("--brand", help="A brand of the member's group.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it. Without it, only look.")]


@member.command("erase")
def erase(
    slug: Slug,
    phone: Annotated[str, typer.Option(help="The member's phone number.", prompt=True)],
    yes: Annotated[bool, typer.Option("--yes", help="Do it: nobody can tell any more who the member was.")] = False,
    as_json: Json = False,
) -> None:
    """Destroy the key of a member's personal data. The books stay as they are. Without --yes, only look."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            member_id = await _member_with(session, shop.vault, slug, phone)
            if yes:
                await erasure.erase(session, member_id, system_clock())
            return {"member_id": str(member_id), "erased": yes}

    terminal.run(work, as_json=as_json, show=_show_erased)


def _show_erased(result: dict[str, Any]) -> None:
    if result["erased"]:
        out.print(f"Member {result['member_id']} is erased.")
    else:
        out.print(f"This is member {result['member_id']}. Nothing was changed; say --yes to erase.")


@member.command("sign-out")
def sign_out(
    slug: Slug,
    phone: Annotated[str, typer.Option(help="The member's phone number.", prompt=True)],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """End every session of a member, on all devices. Without --yes, only count them."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, _trying(shop.database, keep=yes) as session:
            member_id = await _member_with(session, shop.vault, slug, phone)
            ended = await sign_in.close_sessions(session, [member_id])
            return {"member_id": str(member_id), "sessions": ended, "done": yes}

    terminal.run(work, as_json=as_json, show=_show_signed_out)


def _show_signed_out(result: dict[str, Any]) -> None:
    if result["done"]:
        out.print(f"Ended the sessions of member {result['member_id']}: {result['sessions']}.")
    else:
        out.print(
            f"Member {result['member_id']} has so many sessions: {result['sessions']}. Nothing was changed; say --yes."
        )


@member.command("export")
def export(
    slug: Slug,
    phone: Annotated[str, typer.Option(help="The member's phone number.", prompt=True)],
) -> None:
    """Everything that is held about a member, as one JSON document."""

    async def work() -> dict[str, Any]:
        held: dict[str, Any] = {}
        async with terminal.workshop() as shop, shop.database.reading() as session:
            member_id = await _member_with(session, shop.vault, slug, phone)
            async for section, row in member_export.export(session, shop.vault, member_id):
                held.setdefault(section, []).append(row)
        return held

    terminal.run(work, as_json=True, show=terminal.print_json)


@member.command("merge")
def merge(
    slug: Slug,
    phone: Annotated[str, typer.Option(help="The number that stays.", prompt=True)],
    other_phone: Annotated[str, typer.Option(help="The number that is merged into it.", prompt=True)],
    reason: Annotated[str, typer.Option(help="Why: one number was proven, and you answer for the other.", prompt=True)],
    merge_id: Annotated[UUID | None, typer.Option(help="Your own id: the same one again changes nothing.")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Make two members of a group one, on your word. Without --yes, only show what would move."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop:
            async with shop.database.reading() as session:
                survivor_id = await _member_with(session, shop.vault, slug, phone)
                merged_id = await _member_with(session, shop.vault, slug, other_phone)
            new = NewMerge(merge_id or new_id(), survivor_id, merged_id, Approval.OPERATOR, reason)
            async with _trying(shop.database, keep=yes) as session:
                return _told(await merges.merge(session, new, system_clock()), done=yes)

    terminal.run(work, as_json=as_json, show=lambda result: _show_moved(result, "merged"))


@member.command("unmerge")
def unmerge(
    slug: Slug,
    phone: Annotated[str, typer.Option(help="The number of the member who stayed.", prompt=True)],
    merge_id: Annotated[UUID, typer.Option(help="Which merge, see `fanxing member merges`.")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Part two members that were merged. Without --yes, only show what would move back."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop:
            async with shop.database.reading() as session:
                survivor_id = await _member_with(session, shop.vault, slug, phone)
            async with _trying(shop.database, keep=yes) as session:
                return _told(await merges.unmerge(session, survivor_id, merge_id, system_clock()), done=yes)

    terminal.run(work, as_json=as_json, show=lambda result: _show_moved(result, "parted"))


@member.command("merges")
def list_merges(
    slug: Slug,
    phone: Annotated[str, typer.Option(help="The member's phone number.", prompt=True)],
    as_json: Json = False,
) -> None:
    """The merges of other members into this one."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            member_id = await _member_with(session, shop.vault, slug, phone)
            return [
                {
                    "merge_id": str(made.merge_id),
                    "merged_id": str(made.merged_id),
                    "approval": made.approval,
                    "reason": made.reason,
                    "at": iso(made.at),
                    "undone_at": None if made.undone_at is None else iso(made.undone_at),
                }
                for made in await merges.merges_of(session, member_id)
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No merge yet."))


@consent.command("publish")
def publish(
    slug: Annotated[str, typer.Option("--brand", help="A brand of the group.")],
    kind: Annotated[str, typer.Option(help="privacy, marketing, or another word.")],
    version: Annotated[str, typer.Option(help="Such as 2026-05.")],
    title_zh: Annotated[str, typer.Option(help="Title in Chinese.")],
    title_en: Annotated[str, typer.Option(help="Title in English.")],
    url: Annotated[str, typer.Option(help="Where the document stands.")],
    as_json: Json = False,
) -> None:
    """Put a version of a document in force for a group. Members who agreed to an older one are asked again."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            brand = await brand_named(session, slug)
            new = NewDocument(kind, version, title_zh, title_en, url)
            made = await consents.publish(session, brand.group_id, new, system_clock())
            return {"kind": made.kind, "version": made.version, "published_at": iso(made.published_at)}

    terminal.run(
        work, as_json=as_json, show=lambda result: out.print(f"{result['kind']} {result['version']} is in force.")
    )


@consent.command("list")
def list_documents(
    slug: Annotated[str, typer.Option("--brand", help="A brand of the group.")], as_json: Json = False
) -> None:
    """Every version of every document, the latest of each kind last: it is in force."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            brand = await brand_named(session, slug)
            found = await session.exec(
                select(consents.ConsentDocument)
                .where(consents.ConsentDocument.group_id == brand.group_id)
                .order_by(col(consents.ConsentDocument.kind), col(consents.ConsentDocument.published_at))
            )
            return [
                {
                    "kind": document.kind,
                    "version": document.version,
                    "title_zh": document.title_zh,
                    "title_en": document.title_en,
                    "url": document.url,
                    "published_at": iso(document.published_at),
                }
                for document in found
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No document yet."))


class _Undone(Exception):
    """Thrown to leave nothing behind of a look."""


@asynccontextmanager
async def _trying(database: Database, *, keep: bool) -> AsyncIterator[Session]:
    """A transaction that shows what would happen, and keeps it only when told to."""
    with contextlib.suppress(_Undone):
        async with database.writing() as session:
            yield session
            if not keep:
                raise _Undone


async def _member_with(session: Session, vault: Vault, slug: str, phone: str) -> UUID:
    brand = await brand_named(session, slug)
    return await members.member_with(session, vault, brand.group_id, phone)


def _told(merged: Merged, *, done: bool) -> dict[str, Any]:
    return {
        "merge_id": str(merged.merge_id),
        "survivor_id": str(merged.survivor_id),
        "merged_id": str(merged.merged_id),
        "done": done,
        "moved": [
            {
                "asset": one.asset,
                "purpose": str(one.purpose),
                "amount": one.amount,
                "expires_at": None if one.expires_at is None else iso(one.expires_at),
            }
            for one in merged.moved
        ],
    }


def _show_moved(result: dict[str, Any], what: str) -> None:
    terminal.table(result["moved"], "Nothing moves.")
    if result["done"]:
        out.print(f"{what}: {result['merged_id']} and {result['survivor_id']}, merge {result['merge_id']}.")
    else:
        out.print("Nothing was changed; say --yes to do it.")
