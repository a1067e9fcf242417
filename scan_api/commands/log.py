"""The transparency log: its beginning, how it stands, its witnesses, and the export of all of it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from codes.catalogue import brand_named
from kit.clock import iso, system_clock
from kit.files import PRIVATE_MODE, replacing
from scan_api import log_comparison
from scan_api.commands import terminal
from scan_api.commands.terminal import Json
from scan_api.log_comparison import Finding
from scan_api.provenance import line
from scan_api.provenance.trace import STEPS_DEFAULT, STEPS_MAX
from scan_api.scans import Scans
from scan_api.thing_evidence import evidence_about
from scan_api.transparency import bundling, exporting, log_key, proofs, store, witnesses
from scan_api.transparency.standing import standing
from scan_api.transparency.store import LogWitness

log = typer.Typer(help="The transparency log, which nobody can rewrite unseen.", no_args_is_help=True)
witness = typer.Typer(help="Witnesses that cosign the log's checkpoints.", no_args_is_help=True)
log.add_typer(witness, name="witness")


@log.command("init")
def begin(
    origin: Annotated[
        str | None, typer.Option(help="The log's name, for ever; default: the server's host, and /log.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Begin the log: make its key, and give it its name."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            head = await log_key.begin(session, shop.settings, system_clock(), origin)
            return {"origin": head.origin, "key": str(head.key)}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@log.command("status")
def show_status(as_json: Json = False) -> None:
    """How far the log goes, how far it is behind, and which witnesses cosigned what is served."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            head = await store.head_of(session)
            told = (await standing(session, system_clock())).as_json()
            cosigned: list[str] = []
            if head.published is not None:
                signed = await proofs.published(session)
                cosigned = witnesses.names_of(await store.witnesses_of(session), signed)
            return {**told, "key": str(head.key), "cosigned_by": cosigned}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@log.command("export")
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there, or is empty.")],
    as_json: Json = False,
) -> None:
    """Write the whole log and its records to a folder, for `fanxing-audit`."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop:
            async with shop.database.reading() as session:
                signed = await proofs.published(session)
            with terminal.progress("Exporting", "leaves", signed.checkpoint.size, as_json=as_json) as advance:
                done = await exporting.export(shop.database, folder, signed, advance)
        return {
            "folder": str(folder),
            "origin": done.checkpoint.origin,
            "size": done.checkpoint.size,
            "root": done.checkpoint.root.hex(),
            "files": done.files,
            "records": done.openings,
            "erased": done.erased,
        }

    terminal.run(work, as_json=as_json, show=terminal.fields)


@log.command("compare")
def compare(as_json: Json = False) -> None:
    """Compare the rows of events, steps and acts with the log's records. Exits with 1 and names what differs."""
    found = 0

    async def work() -> dict[str, Any]:
        nonlocal found
        async with terminal.workshop() as shop:
            async with shop.database.reading() as session:
                entries = await log_comparison.entries(session)
            with terminal.progress("Comparing", "records", entries, as_json=as_json) as advance:
                done = await log_comparison.compare(shop.database, advance)
            with terminal.progress("Looking for records of", "events", done.events, as_json=as_json) as advance:
                await log_comparison.look_for_unlogged(shop.database, done, advance)
        found = done.found
        return {
            "records": done.records,
            "erased": done.erased,
            "rows_before_the_log": done.older,
            "differences": found,
            "findings": [_difference(one) for one in done.findings],
        }

    terminal.run(work, as_json=as_json, show=_show_comparison)
    if found:
        raise typer.Exit(1)


def _difference(finding: Finding) -> dict[str, Any]:
    return {
        "change": finding.change.value,
        "kind": finding.kind.value,
        "id": str(finding.subject),
        "fields": list(finding.fields),
        "logged_at" if finding.entry_id is not None else "recorded_at": iso(finding.at),
        "entry": None if finding.entry_id is None else str(finding.entry_id),
        "leaf": finding.leaf_index,
    }


def _show_comparison(result: dict[str, Any]) -> None:
    findings = result.pop("findings")
    terminal.fields(result)
    for number, one in enumerate(findings):
        terminal.out.print("\nThe first difference:" if number == 0 else "")
        terminal.fields(one)


@log.command("evidence")
def bundle_evidence(
    thing: Annotated[str, typer.Argument(help="A code text, EPC URN or Digital Link.")],
    slug: Annotated[str, typer.Option("--brand", help="Whose events are to be proved.")],
    to: Annotated[Path, typer.Option("--out", metavar="FILE", help="The zip to write.", dir_okay=False)],
    steps: Annotated[int, typer.Option(min=0, max=STEPS_MAX, help="From thing to thing.")] = STEPS_DEFAULT,
    as_json: Json = False,
) -> None:
    """Write what the log holds of a thing, with its proofs, to a zip, for `fanxing-audit evidence`."""

    async def work() -> dict[str, Any]:
        name = line.name(thing, "the thing")
        async with terminal.workshop() as shop:
            async with shop.database.reading() as session:
                brand = await brand_named(session, slug)
                about = await evidence_about(session, Scans(shop.vault), brand, name, steps)
            with replacing(to, PRIVATE_MODE) as file:
                done = await bundling.write(shop.database, about, file)
        return {"file": str(to), "thing": name, **done.as_json()}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@witness.command("add")
def add_witness(
    key: Annotated[str, typer.Argument(help="Its verifier key, as `fanxing-witness init` prints it.")],
    url: Annotated[str, typer.Option(help="Its URL, before /add-checkpoint.")],
    as_json: Json = False,
) -> None:
    """Have a witness cosign every checkpoint from now on."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            await store.head_of(session)
            return _about(await witnesses.add(session, key, url, system_clock()))

    terminal.run(work, as_json=as_json, show=terminal.fields)


@witness.command("list")
def list_witnesses(as_json: Json = False) -> None:
    """All witnesses, and how each answered last."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            return [_about(one) for one in await store.witnesses_of(session)]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No witness yet."))


@witness.command("remove")
def remove_witness(
    name: Annotated[str, typer.Argument(help="The witness's name.")],
    as_json: Json = False,
) -> None:
    """Ask a witness no more; what it cosigned stays cosigned."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            return _about(await witnesses.remove(session, name))

    terminal.run(work, as_json=as_json, show=terminal.fields)


def _about(row: LogWitness) -> dict[str, Any]:
    return {
        "name": row.name,
        "url": row.url,
        "key": row.verifier_key,
        "cosigned_size": row.cosigned_size,
        "cosigned_at": None if row.cosigned_at is None else iso(row.cosigned_at),
        "trouble": row.trouble,
    }
