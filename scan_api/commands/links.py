"""Links of brands: where the resolver leads those who follow a Digital Link."""

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from codes.catalogue import brand_named
from kit.clock import iso, system_clock
from kit.ids import new_id
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, out
from scan_api.paging import LIMIT_DEFAULT, LIMIT_MAX
from scan_api.resolver import link_types, links, targets
from scan_api.resolver.levels import level_named
from scan_api.resolver.links import LinkRole, NewLink, ResolverLink

link = typer.Typer(help="Links: where a Digital Link of a brand leads.", no_args_is_help=True)


def _moment(text: str) -> Any:
    return typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help=text)


Slug = Annotated[str, typer.Option("--brand", help="The brand's short name.")]


@link.command("add")
def add(
    slug: Slug,
    identifier: Annotated[str, typer.Argument(help="What it belongs to: /01/GTIN, a Digital Link or an EPC URN.")],
    href: Annotated[str, typer.Argument(help="Where it leads: https, on another host; {01} stands for the GTIN.")],
    title: Annotated[str, typer.Option(help="For people, in the target's language.")],
    link_type: Annotated[str, typer.Option("--type", help="Of the GS1 Web Vocabulary.")] = "gs1:pip",
    language: Annotated[list[str] | None, typer.Option(help="The target's: en, zh-CN; again for more.")] = None,
    media_type: Annotated[str | None, typer.Option(help="The target's: text/html.")] = None,
    context: Annotated[list[str] | None, typer.Option(help="A country where it applies: CN; again for more.")] = None,
    role: Annotated[LinkRole, typer.Option(help="default: for who asks for nothing in particular.")] = LinkRole.PLAIN,
    starts: Annotated[datetime | None, _moment("When it begins to count, UTC.")] = None,
    ends: Annotated[datetime | None, _moment("When it ends, UTC.")] = None,
    link_id: Annotated[uuid.UUID | None, typer.Option("--id", help="Replace the link with this id.")] = None,
    as_json: Json = False,
) -> None:
    """Give a link. It counts at once."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop:
            base_url = shop.settings.base_url
            targets.check(href, base_url)
            new = NewLink(
                level_named(identifier),
                link_types.named(link_type),
                title,
                href,
                tuple(language or ()),
                media_type,
                tuple(context or ()),
                role,
                starts.replace(tzinfo=UTC) if starts else None,
                ends.replace(tzinfo=UTC) if ends else None,
            )
            async with shop.database.writing() as session:
                brand = await brand_named(session, slug)
                kept = await links.put(session, brand, link_id or new_id(), new, system_clock())
                return _about(kept, base_url)

    terminal.run(work, as_json=as_json, show=terminal.fields)


@link.command("list")
def list_links(
    slug: Slug,
    identifier: Annotated[str | None, typer.Argument(help="Only those of this level.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="Most rows.")] = LIMIT_DEFAULT,
    as_json: Json = False,
) -> None:
    """A brand's links, newest first."""

    async def work() -> list[dict[str, Any]]:
        level = level_named(identifier) if identifier is not None else None
        async with terminal.workshop() as shop, shop.database.reading() as session:
            brand = await brand_named(session, slug)
            rows = await links.newest_of(session, brand.brand_id or 0, level, (), None, limit)
            return [_about(row, shop.settings.base_url) for row in rows]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No link yet."))


@link.command("remove")
def remove(
    slug: Slug,
    link_id: Annotated[uuid.UUID, typer.Argument(help="The link's id; `fanxing link list` shows it.")],
    as_json: Json = False,
) -> None:
    """Forget a link, at once."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            brand = await brand_named(session, slug)
            await links.remove(session, await links.link_of(session, brand.brand_id or 0, link_id))
            return {"link_id": str(link_id)}

    terminal.run(work, as_json=as_json, show=lambda result: out.print(f"Link {result['link_id']} removed."))


def _about(row: ResolverLink, base_url: str) -> dict[str, Any]:
    return {
        "link_id": str(row.link_id),
        "digital_link": base_url + row.level,
        "type": link_types.short(row.link_type),
        "title": row.title,
        "href": row.href,
        "languages": row.languages,
        "media_type": row.media_type,
        "contexts": row.contexts,
        "role": row.role,
        "valid_from": iso(row.valid_from) if row.valid_from else None,
        "valid_until": iso(row.valid_until) if row.valid_until else None,
    }
