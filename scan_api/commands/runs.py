"""Export runs: begun, taken up again, stopped, shown; and the files of a finished one checked."""

import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from codes import acts, manifest, orders, ranges, runs
from codes.catalogue import gtin14
from codes.exports import ExportKind
from codes.orders import CodeOrder
from codes.packages.origin import require_entitled
from codes.ranges import IndexRange
from codes.run_files import RunFiles
from codes.runs import ExportRun, RunSpec, RunState
from kit.clock import iso, system_clock
from kit.db import Session
from offline_sdk.code_text import Profile
from offline_sdk.cose import Signer
from scan_api.commands import production, terminal
from scan_api.commands.layouts import AskedLayout, layout_options
from scan_api.commands.orders import Gtin, Number, about, face_named, show
from scan_api.commands.production import (
    Agent,
    EngineKind,
    EngineOption,
    Exports,
    Folder,
    Force,
    RayAddress,
    Tools,
    Unpack,
    Workers,
)
from scan_api.commands.terminal import Json, Workshop, out
from signer.keys import SigningKey, public_keys

Run = Annotated[uuid.UUID, typer.Option("--run", help="The run, as `fanxing order runs` shows it.")]


@layout_options
def export_again(
    asked: AskedLayout,
    gtin: Gtin,
    number: Number,
    export: Exports = None,
    face: Annotated[
        list[Profile] | None,
        typer.Option(parser=face_named, metavar="outer|inner", help="Only this face; may be given again."),
    ] = None,
    ranges_text: Annotated[
        str | None, typer.Option("--range", help="Reprint only these: issue indexes or serials, such as 0-4999,7000.")
    ] = None,
    folder: Folder = None,
    unpacked: Unpack = False,
    workers: Workers = None,
    engine: EngineOption = EngineKind.LOCAL,
    ray_address: RayAddress = None,
    agent: Agent = None,
    as_json: Json = False,
) -> None:
    """Write an order's codes again, or some ranges of them: the same order gives the same codes."""

    kinds = list(dict.fromkeys(export or [ExportKind.CSV]))
    force = Force(workers, engine, ray_address, agent)

    async def work() -> dict[str, Any]:
        force.check()
        now, secret = system_clock(), production.new_secret()
        async with terminal.workshop(signs=True) as shop:
            async with shop.database.writing() as session:
                placed = await orders.order_numbered(session, gtin14(gtin), number)
                tools = await _tools(shop, session, placed)
                parts = [IndexRange(0, placed.quantity - 1)]
                if ranges_text is not None:
                    parts = ranges.merged(ranges.parse_ranges(ranges_text, placed, tools.scheme))
                await ranges.check_printable(session, placed, parts)
                spec = production.spec_of(placed, kinds, asked.layout(), faces=face, ranges=parts)
                place = folder or production.folder_of(shop, placed, again_at=now)
                manifest.require_own_folder(place, placed, spec)
                production.require_room(place, placed, spec)
                run = await runs.begin(session, placed, spec, str(place.absolute()), secret, now)
                if ranges_text is not None:
                    detail = {"run": str(run.run_id), "ranges": ranges.written(parts)}
                    await acts.record_act(session, run.order_id, "reprinted", None, detail, now)
            return {
                **about(placed),
                **await production.make(shop, placed, run, secret, tools, force, unpacked=unpacked, as_json=as_json),
            }

    terminal.run(work, as_json=as_json, show=show)


def resume(
    run_id: Run,
    workers: Workers = None,
    engine: EngineOption = EngineKind.LOCAL,
    ray_address: RayAddress = None,
    agent: Agent = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped or killed, where it stood."""

    force = Force(workers, engine, ray_address, agent)

    async def work() -> dict[str, Any]:
        force.check()
        now, secret = system_clock(), production.new_secret()
        async with terminal.workshop(signs=True) as shop:
            async with shop.database.writing() as session:
                run = await runs.run_with(session, run_id)
                placed = await session.get_one(CodeOrder, run.order_id)
                tools = await _tools(shop, session, placed)
                asked = [IndexRange(first, last) for first, last in RunSpec.from_text(run.spec).ranges]
                await ranges.check_printable(session, placed, asked)
                # Asked first: whoever is at work would be stopped by losing the run to one that cannot go on with it.
                RunFiles(Path(run.folder), run.run_id).require_idle()
                run = await runs.take_up(session, run, secret, now)
            return {**about(placed), **await production.make(shop, placed, run, secret, tools, force, as_json=as_json)}

    terminal.run(work, as_json=as_json, show=show)


def cancel(run_id: Run, as_json: Json = False) -> None:
    """Stop a run. What was written is kept, and `fanxing order resume` goes on from there."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            run = await runs.run_with(session, run_id)
            await runs.stop(session, run)
            return await _about_run(session, run)

    terminal.run(work, as_json=as_json, show=_show_run)


def list_runs(as_json: Json = False) -> None:
    """All runs, and how far each is."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            return [await _about_run(session, run) for run in await runs.runs_of(session)]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No run yet."))


def verify(
    folder: Annotated[Path, typer.Argument(help="A folder with the files of a run and its manifest.")],
    bundle: Annotated[Path | None, typer.Option(help="Trust bundle; default: the keys in this database.")] = None,
    root: Annotated[Path | None, typer.Option(help="Root public key of the bundle.")] = None,
    as_json: Json = False,
) -> None:
    """Check that the files of a run are those that the order's key signed for."""

    async def work() -> dict[str, Any]:
        trusted = None
        if bundle is not None and root is not None:
            trusted = terminal.trusted_bundle(bundle, root)
            known = {key.kid: Signer(key.algorithm, key.public) for key in trusted.keys}
        else:
            async with terminal.workshop() as shop, shop.database.reading() as session:
                known = await public_keys(session)
        checked = manifest.read(folder, known)
        if trusted is not None:
            require_entitled(checked, trusted)
        total = sum(file.bytes for file in checked.files)
        with terminal.progress("Reading", "bytes", total, as_json=as_json) as advance:
            manifest.check_files(folder, checked, advance)
        return {**{name: checked.content[name] for name in _TOLD}, "files": len(checked.files), "bytes": total}

    terminal.run(work, as_json=as_json, show=_show_verified)


_TOLD = ("run", "gtin", "order", "faces", "codes", "kid", "finished_at")


async def _tools(shop: Workshop, session: Session, placed: CodeOrder) -> Tools:
    """The keys of an order, opened. Raises CustodyError, SerialKeyMissing."""
    key = await session.get_one(SigningKey, placed.kid)
    shop.signer.open_key(key)
    return Tools(key, await orders.scheme_of_order(session, shop.vault, placed))


async def _about_run(session: Session, run: ExportRun) -> dict[str, Any]:
    placed, spec = await session.get_one(CodeOrder, run.order_id), RunSpec.from_text(run.spec)
    return {
        "run": str(run.run_id),
        "gtin": placed.gtin,
        "order": placed.order_number,
        "exports": [kind.value for kind in spec.kinds],
        "state": _state(run),
        "codes_written": await runs.codes_written(session, run.run_id),
        "codes": spec.items * len(spec.faces),
        "begun_at": iso(run.created_at),
        "folder": run.folder,
    }


def _state(run: ExportRun) -> str:
    """Its state, and `interrupted` for one that was killed, as far as this machine can tell."""
    files = RunFiles(Path(run.folder), run.run_id)
    return "interrupted" if run.state == RunState.RUNNING and files.lie_idle() else run.state


def _show_run(result: dict[str, Any]) -> None:
    terminal.fields(result)
    if result["state"] in (RunState.STOPPED, "interrupted"):
        out.print(f"`fanxing order resume --run {result['run']}` goes on from there.", soft_wrap=True)


def _show_verified(result: dict[str, Any]) -> None:
    terminal.fields(result)
    out.print("The manifest is signed by the order's key, and every file is as it says.")
