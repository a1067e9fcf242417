"""Sandboxes: make-believe brands for makers of apps and tills, and the description of the API that they work by."""

import dataclasses
import json
import sys
from typing import Annotated, Any

import typer

from kit.clock import iso, system_clock
from scan_api import playground
from scan_api.app import description
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, out

sandbox = typer.Typer(help="Sandboxes: brands of make-believe, to try the API on.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The sandbox's name, and its brand's short name: a-z, 0-9, hyphens.")]


@sandbox.command("create")
def create(name: Name, as_json: Json = False) -> None:
    """Make a group, a brand, a product and API keys. The keys are shown once."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            return dataclasses.asdict(await playground.create(session, shop.vault, name, system_clock()))

    terminal.run(work, as_json=as_json, show=_show)


@sandbox.command("list")
def list_sandboxes(as_json: Json = False) -> None:
    """The sandboxes that are in use."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            return [
                {"name": group.name, "brand": slug, "fresh_since": iso(group.created_at)}
                for group, slug in await playground.everyone(session)
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No sandbox yet."))


@sandbox.command("reset")
def reset(name: Name, as_json: Json = False) -> None:
    """Begin anew without members, points or benefits. API keys, product and webhooks stay."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            return dataclasses.asdict(await playground.reset(session, name, system_clock()))

    terminal.run(work, as_json=as_json, show=_show)


def print_openapi() -> None:
    """Print the description of the API (OpenAPI 3.1, JSON). It needs no installation."""
    sys.stdout.write(json.dumps(description(), ensure_ascii=False, indent=1) + "\n")


def _show(result: dict[str, Any]) -> None:
    out.print(f"Sandbox {result['name']}: brand {result['brand']}, product {result['gtin']}.")
    for role, text in result["keys"].items():
        out.print(f"{role}: {text}", soft_wrap=True)
    if result["keys"]:
        terminal.err.print("This is the only time that the keys are shown.")
    else:
        terminal.err.print("It is fresh; its keys are those that it had.")
