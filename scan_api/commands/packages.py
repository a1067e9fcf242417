"""Code packages: exports sealed for a print house, handed out by links, reported back."""

import fcntl
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict, ValidationError

from codes import manifest, orders, packages, ranges
from codes.catalogue import gtin14
from codes.manifest import Manifest, ManifestInvalid
from codes.orders import CodeOrder
from codes.packages import CodePackage, links, reports, sealing
from codes.packages.links import PackageLink
from codes.packages.origin import require_entitled
from codes.packages.reports import PackageReport, ReportInvalid, ReportState, Told
from codes.ranges import IndexRange
from kit.clock import iso, system_clock
from kit.db import Session
from kit.errors import Conflict, Invalid
from kit.files import require_free
from kit.ids import new_id
from offline_sdk.cose import Signer
from scan_api.commands import terminal
from scan_api.commands.orders import Gtin, Number
from scan_api.commands.terminal import Json, out
from scan_api.provenance import events
from scan_api.provenance.events import Happening, Step
from scan_api.web.pages import PACKAGES_PATH
from signer.keys import public_keys

REPORT_BYTES_MAX = 1 << 20
_LIFETIME = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}

package = typer.Typer(help="Code packages (码包): sealed exports for a print house.", no_args_is_help=True)

Package = Annotated[uuid.UUID, typer.Option("--package", help="The package, as `fanxing package list` shows it.")]
Report = Annotated[uuid.UUID, typer.Option("--report", help="The report, as `fanxing package reports` shows it.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it.")]


class ExportOfAnotherOrder(Invalid):
    code = "ExportOfAnotherOrder"


class LifetimeInvalid(Invalid):
    code = "LifetimeInvalid"


class SealingBusy(Conflict):
    code = "SealingBusy"


@package.command("seal")
def seal(
    gtin: Gtin,
    number: Number,
    folder: Annotated[Path, typer.Option(help="The folder of a finished export.")],
    name: Annotated[str, typer.Option(help="1 to 80 characters, each name once in an order.")],
    to: Annotated[list[str], typer.Option(help="Public key of age (age1…) of the print house; may be given again.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Seal a finished export so that only the print house can open it. Its signature is checked first."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop:
            async with shop.database.reading() as session:
                placed = await orders.order_numbered(session, gtin14(gtin), number)
                recipients = sealing.recipients_of(to)
                await packages.require_name(session, placed, name)
                contents = manifest.read(folder, await public_keys(session))
                spans = _spans(placed, contents)
                parts = [IndexRange(*span) for span in spans]
                await ranges.check_printable(session, placed, parts)
                also_in = await _also_in(session, placed, spans)
            shelf, package_id = shop.settings.home / packages.FOLDER, new_id()
            plan = {
                "gtin": placed.gtin,
                "order": placed.order_number,
                "name": name,
                "recipients": recipients,
                "items": sum(last - first + 1 for first, last in spans),
                "also_in": also_in,
            }
            bytes_max = sealing.sealed_bytes_max(folder, contents, len(recipients))
            require_free(shelf, bytes_max)
            if dry_run:
                return {"dry_run": True, **plan, "bytes_max": bytes_max}
            path, total = shelf / packages.file_name(package_id), sum(file.bytes for file in contents.files)
            with _shelf_held(shelf), terminal.progress("Sealing", "bytes", total, as_json=as_json) as advance:
                try:
                    # Not in a thread of its own: it would go on after Ctrl-C, and leave a package that no row names.
                    sealed = sealing.seal(folder, contents, recipients, path, advance)
                    async with shop.database.writing() as session:
                        # Again: sealing takes a while, and a roll may have been voided meanwhile.
                        now_placed = await orders.order_numbered(session, placed.gtin, number)
                        await ranges.check_printable(session, now_placed, parts)
                        register = partial(packages.register, session, placed, package_id, name, recipients, spans)
                        made = await register(sealed, None, system_clock())
                except BaseException:
                    path.unlink(missing_ok=True)  # nobody could ever fetch it
                    raise
            return {**_about(made), **plan, "file": str(path), "files": sealed.files}

    terminal.run(work, as_json=as_json, show=_show)


def _spans(placed: CodeOrder, contents: Manifest) -> list[tuple[int, int]]:
    """The issue indexes that an export holds. Raises ExportOfAnotherOrder, ManifestInvalid."""
    theirs = contents.content["gtin"], contents.content["order"]
    if theirs != (placed.gtin, placed.order_number):
        raise ExportOfAnotherOrder(
            f"this export is of order {theirs[1]:05d} of {theirs[0]}, not of {placed.order_number:05d} of {placed.gtin}"
        )
    if contents.kid != placed.kid:  # another issuer's key may lie in the same database
        raise ManifestInvalid(f"the manifest is signed by key {contents.kid}, and the order's codes by {placed.kid}")
    merged = ranges.merged([IndexRange(first, last) for first, last in contents.content["ranges"]])
    return [(one.first, one.last) for one in merged]


async def _also_in(session: Session, placed: CodeOrder, spans: list[tuple[int, int]]) -> list[str]:
    """The names of other packages that hold some of these codes: two print houses may print the same code."""
    mine = [IndexRange(*span) for span in spans]
    others = await packages.packages_of(session, placed.order_id)
    return [other.name for other in others if ranges.common(mine, [IndexRange(*span) for span in other.spans])]


@contextmanager
def _shelf_held(shelf: Path) -> Iterator[None]:
    """Seal alone in a data folder: what is half written there then is what a crash left, and is cleared away."""
    shelf.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(shelf, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SealingBusy(
                "another package is being sealed in this data folder", hint="Wait till it is done."
            ) from None
        for litter in shelf.glob("*.part"):
            litter.unlink()
        yield
    finally:
        os.close(lock)


@package.command("list")
def list_packages(
    gtin: Annotated[str | None, typer.Option(help="Only this product's.")] = None, as_json: Json = False
) -> None:
    """All packages, and how many reports wait for the brand."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            wanted = gtin14(gtin) if gtin else None
            waiting = await reports.waiting(session)
            rows = []
            for one in await packages.packages_of(session):
                placed = await session.get_one(CodeOrder, one.order_id)
                if wanted in (None, placed.gtin):
                    about = {"gtin": placed.gtin, "order": placed.order_number, **_about(one)}
                    rows.append({**about, "reports_waiting": waiting.get(one.package_id, 0)})
            return rows

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No package yet."))


@package.command("link")
def link(
    package_id: Package,
    label: Annotated[str, typer.Option("--for", help="Whom the link is for; 1 to 100 characters.")],
    expires: Annotated[str, typer.Option(help="When it ends: 30m, 12h, 7d.")] = "7d",
    fetches: Annotated[int, typer.Option(help="How many downloads it allows, 1 to 100.")] = 1,
    as_json: Json = False,
) -> None:
    """Make a link to a package. Its fetch code is shown this once: tell it apart from the link."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            found = await packages.package_with(session, package_id)
            made, code = await links.create(session, found, label, _lifetime(expires), fetches, system_clock())
            url = f"{shop.settings.base_url}{PACKAGES_PATH}/{package_id}"
            return {**_about_link(made), "url": url, "fetch_code": code}

    def show(result: dict[str, Any]) -> None:
        _show(result)
        out.print("The fetch code is not shown again. Send the address, and tell the code on another channel.")

    terminal.run(work, as_json=as_json, show=show)


def _lifetime(text: str) -> timedelta:
    found = _LIFETIME.fullmatch(text)
    if found is None:
        raise LifetimeInvalid("a lifetime is a number of minutes, hours or days", hint="Such as 30m, 12h or 7d.")
    return int(found[1]) * _UNITS[found[2]]


@package.command("links")
def list_links(package_id: Package, as_json: Json = False) -> None:
    """A package's links."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            await packages.package_with(session, package_id)
            return [_about_link(made) for made in await links.links_of(session, package_id)]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No link yet."))


@package.command("revoke-link")
def revoke_link(
    link_id: Annotated[uuid.UUID, typer.Option("--link", help="The link, as `fanxing package links` shows it.")],
    as_json: Json = False,
) -> None:
    """End a link at once: it neither fetches nor reports any more."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            return _about_link(await links.revoke(session, link_id, system_clock()))

    terminal.run(work, as_json=as_json, show=_show)


@package.command("audit")
def audit(package_id: Package, as_json: Json = False) -> None:
    """Who fetched a package and when, and who was refused."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            await packages.package_with(session, package_id)
            return [
                {
                    "at": iso(tried.at),
                    "outcome": tried.outcome,
                    "for": used.label if used else None,
                    "link": str(tried.link_id) if tried.link_id else None,
                    "from": tried.remote,
                }
                for tried, used in await links.fetches_of(session, package_id)
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "Nobody has tried to fetch it."))


@package.command("open")
def open_package(
    path: Annotated[Path, typer.Argument(help="The package's file.")],
    identity: Annotated[Path, typer.Option(help="Your private key of age, as age-keygen wrote it.")],
    folder: Annotated[Path, typer.Option("--out", help="A new folder for the files.")],
    bundle: Annotated[Path, typer.Option(help="The brand's trust bundle.")],
    root: Annotated[Path, typer.Option(help="Root public key of the bundle.")],
    as_json: Json = False,
) -> None:
    """Open a package, and check that the brand made it. For print houses: needs no database."""

    async def work() -> dict[str, Any]:
        trusted = terminal.trusted_bundle(bundle, root)
        known = {key.kid: Signer(key.algorithm, key.public) for key in trusted.keys}
        with terminal.progress("Checking", "bytes", path.stat().st_size, as_json=as_json) as advance:
            require = partial(require_entitled, trusted=trusted)
            opened = sealing.open_package(path, identity, folder, known, advance, require)
        told = {name: opened.content[name] for name in ("gtin", "order", "faces", "ranges", "codes", "kid")}
        return {**told, "files": len(opened.files), "folder": str(folder)}

    terminal.run(work, as_json=as_json, show=_show)


class _ReportFile(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    report_id: uuid.UUID
    printed: str = ""
    spoiled: str = ""
    overprinted: str = ""


@package.command("report")
def report(
    package_id: Package,
    file: Annotated[Path, typer.Option(help="The report as JSON, see docs/code-packages.md.")],
    as_json: Json = False,
) -> None:
    """Enter a print house's report that came by another way. It takes effect when it is accepted."""

    async def work() -> dict[str, Any]:
        told = _read_report(file)
        async with terminal.workshop() as shop, shop.database.writing() as session:
            found = await packages.package_with(session, package_id)
            placed = await session.get_one(CodeOrder, found.order_id)
            scheme = await orders.scheme_of_order(session, shop.vault, placed)
            return (await reports.receive(session, found, scheme, told, None, system_clock())).as_json()

    terminal.run(work, as_json=as_json, show=_show)


def _read_report(path: Path) -> Told:
    if path.stat().st_size > REPORT_BYTES_MAX:
        raise ReportInvalid(f"a report is a file of at most {REPORT_BYTES_MAX:,} bytes")
    try:
        return Told(**_ReportFile.model_validate_json(path.read_bytes()).model_dump())
    except ValidationError as error:
        where = {".".join(map(str, fault["loc"])) or "the file" for fault in error.errors(include_input=False)}
        raise ReportInvalid(
            f"{path} is no report: see {', '.join(sorted(where))}", hint="docs/code-packages.md shows one."
        ) from None


@package.command("reports")
def list_reports(package_id: Package, as_json: Json = False) -> None:
    """What print houses reported of a package, and what became of it."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            await packages.package_with(session, package_id)
            known = {made.link_id: made.label for made in await links.links_of(session, package_id)}
            return [
                {
                    "received_at": iso(told.received_at),
                    "by": known[told.link_id] if told.link_id else None,
                    **told.as_json(),
                }
                for told in await reports.reports_of(session, package_id)
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No report yet."))


@package.command("accept")
def accept(package_id: Package, report_id: Report, yes: Yes = False, as_json: Json = False) -> None:
    """Put what was printed on sale, void what was spoiled or overprinted. Without --yes, say what would happen."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            found = await packages.package_with(session, package_id)
            told = await reports.report_with(session, package_id, report_id)
            settled = await _accept(session, found, told, system_clock())
            if not yes:
                await session.rollback()
                return {**settled, "state": ReportState.RECEIVED.value, "dry_run": True}
            return settled

    terminal.run(work, as_json=as_json, show=_show_settled)


async def _accept(session: Session, found: CodePackage, told: PackageReport, now: datetime) -> dict[str, Any]:
    placed = await session.get_one(CodeOrder, found.order_id)
    settled = await reports.accept(session, found, told, None, now)
    for step, changed in ((Step.ACTIVATED, settled.activated), (Step.VOIDED, settled.voided)):
        if changed:
            await events.record_for_order(session, placed, Happening(step, now, None, None), now, changed)
    twice = await reports.printed_elsewhere(session, found, told)
    return {
        **told.as_json(),
        "printed_elsewhere": ranges.written(twice),
        "activated": sum(part.items for part in settled.activated),
        "voided": sum(part.items for part in settled.voided),
    }


@package.command("reject")
def reject(package_id: Package, report_id: Report, as_json: Json = False) -> None:
    """Refuse a report for good: nothing follows from it, and the print house may send a right one."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            found = await packages.package_with(session, package_id)
            told = await reports.report_with(session, package_id, report_id)
            await reports.reject(session, found, told, None, system_clock())
            return told.as_json()

    terminal.run(work, as_json=as_json, show=_show)


def _about(found: CodePackage) -> dict[str, Any]:
    return {
        "package": str(found.package_id),
        "name": found.name,
        "items": found.items,
        "ranges": ranges.written([IndexRange(*span) for span in found.spans]),
        "recipients": found.recipients.split(),
        "bytes": found.bytes,
        "sha256": found.sha256.hex(),
        "created_at": iso(found.created_at),
    }


def _about_link(made: PackageLink) -> dict[str, Any]:
    return {
        "link": str(made.link_id),
        "package": str(made.package_id),
        "for": made.label,
        "expires_at": iso(made.expires_at),
        "fetches": made.fetches,
        "fetches_max": made.fetches_max,
        "revoked_at": iso(made.revoked_at) if made.revoked_at else None,
    }


def _show(result: dict[str, Any]) -> None:
    terminal.fields(result)
    if result.get("also_in"):
        out.print("Some of these codes are in another package too: whoever prints both makes doubles.")
    if result.get("dry_run"):
        out.print("Nothing was changed.")


def _show_settled(result: dict[str, Any]) -> None:
    verb = "would be" if result.get("dry_run") else "were"
    out.print(f"{result['activated']:,} items {verb} put on sale, {result['voided']:,} {verb} voided.")
    if result["printed_elsewhere"]:
        out.print(f"Another package's report calls these printed too: {result['printed_elsewhere']}", soft_wrap=True)
        out.print("Two labels have one code: destroy one of each pair, or void them with `fanxing order void`.")
    if result.get("dry_run"):
        out.print("Nothing was changed; --yes does it. What is on sale pays rewards.")
