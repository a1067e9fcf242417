"""Devices, the shops' scanners: invited with a code, listed, and revoked."""

import io
import sys
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import qrcode
import typer

from codes.catalogue import brand_named
from kit.clock import iso, system_clock
from kit.files import write_secret
from scan_api import devices
from scan_api.commands import terminal
from scan_api.commands.terminal import ArgumentInvalid, Json, out
from scan_api.devices import LIFETIME_DEFAULT, Standing

_HOUR = timedelta(hours=1)

device = typer.Typer(help="Devices: the scanners of shops.", no_args_is_help=True)


@device.command("invite")
def invite(
    name: Annotated[str, typer.Option(help="Which device it is for, and where; 1 to 100 printable characters.")],
    slug: Annotated[str | None, typer.Option("--brand", help="The brand whose items it may report.")] = None,
    all_brands: Annotated[bool, typer.Option("--all-brands", help="It may report items of every brand.")] = False,
    hours: Annotated[float, typer.Option(help="How long the code works, at most 168.")] = LIFETIME_DEFAULT / _HOUR,
    path: Annotated[Path | None, typer.Option("--out", help="Also write the QR code to a new PNG file.")] = None,
    as_json: Json = False,
) -> None:
    """Make a code that lets one device in. It is shown once."""

    async def work() -> dict[str, Any]:
        if (slug is None) != all_brands:
            raise ArgumentInvalid("name the device's brand with --brand, or say --all-brands")
        now = system_clock()
        # Longer than all time is refused like a week and a minute.
        lifetime = min(hours, 1e6) * _HOUR if hours > 0 else timedelta(0)
        async with terminal.workshop() as shop:
            pin = shop.pin
            async with shop.database.writing() as session:
                brand_id = (await brand_named(session, slug)).brand_id if slug else None
                made, code = await devices.invite(session, shop.vault, brand_id, name, lifetime, now)
                text = devices.enrolment_text(shop.settings.base_url, code, pin)
                if path is not None:
                    # In the transaction: where the picture cannot be written, no code is left behind.
                    write_secret(path, _picture(text))
            return {
                "code": devices.grouped(code),
                "name": made.name,
                "brand": slug,
                "expires_at": iso(made.expires_at),
                "server": shop.settings.base_url,
                "pin": pin.hex(),
                "text": text,
                "file": str(path) if path else None,
            }

    terminal.run(work, as_json=as_json, show=_show_invitation)


def _symbol(text: str) -> qrcode.QRCode[Any]:
    symbol: qrcode.QRCode[Any] = qrcode.QRCode(error_correction=qrcode.constants.ERROR_CORRECT_M)
    symbol.add_data(text)
    return symbol


def _picture(text: str) -> bytes:
    png = io.BytesIO()
    _symbol(text).make_image().save(png)
    return png.getvalue()


def _show_invitation(result: dict[str, Any]) -> None:
    # Dark terminals are the rule, and a scanner reads dark modules on a light ground.
    _symbol(result["text"]).print_ascii(out=sys.stdout, invert=True)
    out.print(f"Code {result['code']}, for {result['name']}, until {result['expires_at']}")
    out.print(f"Server {result['server']}", soft_wrap=True)
    out.print(f"Pin {result['pin']}", soft_wrap=True)
    if result["file"]:
        out.print(f"Wrote {result['file']}", soft_wrap=True)
    terminal.err.print("This is the only time that the code is shown. Whoever has it first is let in.")


@device.command("list")
def list_devices(as_json: Json = False) -> None:
    """All devices: when they last synced, how old their bundle is, and what still waits on them."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            now = system_clock()
            return [_about(standing, now) for standing in await devices.everyone(session)]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No device yet."))


@device.command("revoke")
def revoke(
    device_id: Annotated[uuid.UUID, typer.Argument(help="The device, as `fanxing device list` shows it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it: its requests are refused from now on, for good.")] = False,
    as_json: Json = False,
) -> None:
    """Shut a device out. Without --yes, say what would happen. What it has not synced never comes."""

    async def work() -> dict[str, Any]:
        now = system_clock()
        async with terminal.workshop() as shop, shop.database.writing() as session:
            found = await devices.device_with(session, device_id)
            if yes:
                found = await devices.revoke(session, device_id, now)
            told = {
                "device_id": str(found.device_id),
                "name": found.name,
                "waiting": found.waiting,
                "revoked_at": _iso(found.revoked_at),
            }
            return told if yes else {**told, "dry_run": True}

    terminal.run(work, as_json=as_json, show=_show_revocation)


def _show_revocation(result: dict[str, Any]) -> None:
    which = f"device {result['device_id']}, {result['name']}"
    waiting = f"; {result['waiting']:,} records wait on it" if result["waiting"] else ""
    if result["revoked_at"]:
        out.print(f"Revoked since {result['revoked_at']}: {which}", soft_wrap=True)
    else:
        out.print(f"Would be revoked: {which}{waiting}", soft_wrap=True)
        out.print("Nothing was changed; --yes does it.")


def _about(standing: Standing, now: datetime) -> dict[str, Any]:
    one = standing.device
    issued = standing.bundle_issued_at
    return {
        "device_id": str(one.device_id),
        "name": one.name,
        "own_name": one.own_name,
        "brand": standing.brand,
        "enrolled_at": iso(one.enrolled_at),
        "revoked_at": _iso(one.revoked_at),
        "last_sync_at": _iso(one.last_sync_at),
        "bundle_seq": one.bundle_seq,
        "bundle_age_hours": round((now - issued) / _HOUR, 1) if issued else None,
        "root_version": one.root_version,
        "waiting": one.waiting,
        "clock_offset_s": None if one.clock_offset_ms is None else one.clock_offset_ms / 1_000,
    }


def _iso(moment: datetime | None) -> str | None:
    return iso(moment) if moment else None
