"""Issuers, their keys, revocations, and the trust bundles that tell scanners of them."""

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlmodel import col, select

from codes.catalogue import gtin14
from codes.orders import OrderUnknown, order_numbered, orders_of
from codes.serials import create_serial_key
from kit.clock import iso, system_clock
from kit.db import Session
from kit.errors import Invalid
from kit.files import replacing
from offline_sdk.algorithms import Algorithm
from scan_api.commands import terminal
from scan_api.commands.roots import AlgorithmName, algorithm_named
from scan_api.commands.terminal import Json, out
from signer import keys, publication
from signer.keys import Issuer, KeyState, SigningKey
from signer.publication import TrustBundle

issuer = typer.Typer(help="Issuers: companies that issue codes under their GS1 prefixes.", no_args_is_help=True)
key = typer.Typer(help="Signing keys of issuers.", no_args_is_help=True)
bundle = typer.Typer(help="Trust bundles: what scanners know.", no_args_is_help=True)

Name = Annotated[str, typer.Option("--issuer", help="The issuer's name.")]


class RevokeWhat(Invalid):
    code = "RevokeWhat"


@issuer.command("create")
def create_issuer(
    name: Annotated[str, typer.Option(help="The company's name, as scanners show it.")],
    gtin_prefix: Annotated[list[str], typer.Option(help="A GS1 company prefix of its own; may be given again.")],
    algorithm: AlgorithmName = Algorithm.ED25519.label,
    as_json: Json = False,
) -> None:
    """Register an issuer, give it a signing key and a serial key, and publish a new trust bundle."""

    async def work() -> dict[str, Any]:
        now, kind = system_clock(), algorithm_named(algorithm)
        async with terminal.workshop(signs=True) as shop, shop.database.writing() as session:
            made = await keys.create_issuer(session, name, gtin_prefix, now)
            assert made.issuer_id is not None
            create_serial_key(session, shop.vault, made.issuer_id)
            signing = await shop.signer.create_key(session, made, now, algorithm=kind)
            published = await shop.publish(session, now)
            return {"issuer": made.name, "gtin_prefixes": made.gtin_prefixes, "kid": signing.kid, **_about(published)}

    terminal.run(work, as_json=as_json, show=_show_published)


@issuer.command("list")
def list_issuers(as_json: Json = False) -> None:
    """All issuers."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            rows = (await session.exec(select(Issuer).order_by(col(Issuer.issuer_id)))).all()
            return [
                {"issuer": row.name, "gtin_prefixes": row.gtin_prefixes, "created_at": iso(row.created_at)}
                for row in rows
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No issuer yet."))


@key.command("list")
def list_keys(as_json: Json = False) -> None:
    """All signing keys, their public side."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            rows = await session.exec(
                select(SigningKey, Issuer)
                .join(Issuer, col(SigningKey.issuer_id) == Issuer.issuer_id)
                .order_by(col(SigningKey.kid))
            )
            return [
                {
                    "kid": row.kid,
                    "issuer": owner.name,
                    "state": row.state,
                    "algorithm": row.algorithm,
                    "public_hex": row.public.hex(),
                    "order_min": row.order_min,
                    "order_max": row.order_max,
                    "created_at": iso(row.created_at),
                }
                for row, owner in rows
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No key yet."))


@key.command("create")
def create_key(
    name: Name,
    algorithm: AlgorithmName = Algorithm.ED25519.label,
    order_min: Annotated[int, typer.Option(help="The first order number it may sign.")] = keys.ORDER_NUMBER_MIN,
    order_max: Annotated[int, typer.Option(help="The last order number it may sign.")] = keys.ORDER_NUMBER_MAX,
    as_json: Json = False,
) -> None:
    """Give an issuer another key, which signs its orders from now on, and publish a new trust bundle."""

    async def work() -> dict[str, Any]:
        now, kind = system_clock(), algorithm_named(algorithm)
        async with terminal.workshop(signs=True) as shop, shop.database.writing() as session:
            owner = await keys.issuer_named(session, name)
            made = await shop.signer.create_key(
                session, owner, now, algorithm=kind, order_min=order_min, order_max=order_max
            )
            return {
                "issuer": owner.name,
                "kid": made.kid,
                "algorithm": made.algorithm,
                **_about(await shop.publish(session, now)),
            }

    terminal.run(work, as_json=as_json, show=_show_published)


@key.command("rotate")
def rotate_key(name: Name, as_json: Json = False) -> None:
    """Replace an issuer's key. The old one gets no new orders; its codes stay good."""

    async def work() -> dict[str, Any]:
        now = system_clock()
        async with terminal.workshop(signs=True) as shop, shop.database.writing() as session:
            owner = await keys.issuer_named(session, name)
            old, new = await shop.signer.rotate_key(session, owner, now)
            return {
                "issuer": owner.name,
                "retired": old.kid,
                "kid": new.kid,
                **_about(await shop.publish(session, now)),
            }

    terminal.run(work, as_json=as_json, show=_show_published)


@key.command("revoke")
def revoke_key(
    kid: Annotated[int, typer.Argument(help="The key's number.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it: EVERY code that this key signed is refused.")] = False,
    as_json: Json = False,
) -> None:
    """Refuse every code of a key, because its private side may be known to others. There is no way back."""

    async def work() -> dict[str, Any]:
        now = system_clock()
        async with terminal.workshop(signs=True) as shop, shop.database.writing() as session:
            found = await keys.key_numbered(session, kid)
            if not yes:
                owner = await session.get_one(Issuer, found.issuer_id)
                signed = [order for order in await orders_of(session) if order.kid == kid]
                return {
                    "kid": found.kid,
                    "state": found.state,
                    "issuer": owner.name,
                    "orders_refused": len(signed),
                    "codes_refused": sum(order.quantity * len(order.faces) for order in signed),
                    "dry_run": True,
                }
            ended = await keys.end_key(session, kid, KeyState.REVOKED, now)
            return {"kid": ended.kid, "state": ended.state, **_about(await shop.publish(session, now))}

    terminal.run(work, as_json=as_json, show=_show_published)


def revoke(
    gtin: Annotated[str, typer.Option(help="The GTIN.")],
    serial: Annotated[str | None, typer.Option(help="One item: its 14-digit serial.")] = None,
    order: Annotated[int | None, typer.Option(help="A whole order: its number.")] = None,
    reason: Annotated[str, typer.Option(help="Why; kept for the record.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it: there is no way back.")] = False,
    as_json: Json = False,
) -> None:
    """Refuse the codes of one item or one order for good, and publish a new trust bundle. Without --yes, say which."""

    async def work() -> dict[str, Any]:
        now = system_clock()
        async with terminal.workshop(signs=yes) as shop, shop.database.writing() as session:
            if (serial is None) == (order is None):
                raise RevokeWhat("say either --serial or --order", hint="An item or an order, not both.")
            if not yes:
                return {
                    "gtin": gtin14(gtin),
                    "serial": serial,
                    **await _of_order(session, gtin, order),
                    "dry_run": True,
                }
            if serial is not None:
                await keys.revoke_item(session, gtin14(gtin), serial, reason, now)
            else:
                await keys.revoke_orders(session, gtin14(gtin), order or 0, order or 0, reason, now)
            return {"gtin": gtin14(gtin), "serial": serial, "order": order, **_about(await shop.publish(session, now))}

    terminal.run(work, as_json=as_json, show=_show_published)


async def _of_order(session: Session, gtin: str, number: int | None) -> dict[str, Any]:
    """What would be refused with an order; revoking one that was never made is allowed, its key may be stolen."""
    if number is None:
        return {}
    quantity = 0
    with suppress(OrderUnknown):
        quantity = (await order_numbered(session, gtin14(gtin), number)).quantity
    return {"order": number, "items_refused": quantity}


@bundle.command("publish")
def publish_bundle(
    file: Annotated[Path | None, typer.Option("--out", help="Also write the bundle to this file.")] = None,
    days: Annotated[int, typer.Option(help="Days until it expires.")] = publication.LIFETIME_DEFAULT.days,
    as_json: Json = False,
) -> None:
    """Sign the present keys and revocations as the next trust bundle. Do it well before the last one expires."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop(signs=True) as shop, shop.database.writing() as session:
            published = await shop.publish(session, system_clock(), timedelta(days=days))
            content = await publication.trust_file(session)
        return _written(published, content, file)

    terminal.run(work, as_json=as_json, show=_show_published)


@bundle.command("export")
def export_bundle(
    file: Annotated[Path, typer.Option("--out", help="Where to write it.")], as_json: Json = False
) -> None:
    """Write root documents and the newest trust bundle to one file, for scanners without a network."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            return _written(await publication.latest(session), await publication.trust_file(session), file)

    terminal.run(work, as_json=as_json, show=_show_published)


@bundle.command("show")
def show_bundle(as_json: Json = False) -> None:
    """The newest trust bundle's content, verified against the root."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            return (await shop.trusted_bundle(session)).as_json()

    terminal.run(work, as_json=as_json, show=terminal.print_json)


def _about(published: TrustBundle) -> dict[str, Any]:
    return {"bundle_seq": published.seq, "bundle_expires": iso(published.expires_at)}


def _written(published: TrustBundle, content: bytes, file: Path | None) -> dict[str, Any]:
    if file is not None:
        with replacing(file) as handle:
            handle.write(content)
    return {**_about(published), "sha256": published.sha256, "file": str(file) if file else None}


def _show_published(result: dict[str, Any]) -> None:
    for name, value in result.items():
        if value is not None:
            out.print(f"{name.replace('_', ' ')}: {terminal.cell(value)}", soft_wrap=True)
    if result.get("dry_run"):
        out.print("Nothing was changed. Say --yes to do it.")
    elif not result.get("file"):
        out.print("Bring the bundle to scanners: `fanxing bundle export --out FILE`, or GET /v1/trust.")
