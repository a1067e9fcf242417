"""Production: a run is carried through whatever happens on the way, and its files are the same in the end."""

import asyncio
import json
import os
import resource
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from codes import manifest, production, runs
from codes.engines import WorkerLost
from codes.engines.inline import InlineEngine
from codes.exports import ExportKind
from codes.manifest import FileAltered, ManifestInvalid, ManifestMissing
from codes.run_files import ExportDamaged, RunBusy, RunFiles
from codes.runs import RunFinished, RunState, RunStopped, RunUnknown
from kit.db import Database
from kit.files import DiskFull
from kit.ids import new_id
from offline_sdk import Algorithm, Signer
from tests.codes.conftest import Market
from tests.codes.factory import FailingEngine, SmallFactory, files_in, open_factory

TEXTS = (ExportKind.CSV, ExportKind.NDJSON)
FILE_BYTES_MAX = 2_000_000
"""Room for the codes of eight sections of a thousand, and a part of the ninth."""
SECTIONS = 10
"""Of the small factory's order: 45 items in sections of 10, two faces."""


@pytest.fixture
async def factory(database: Database, market: Market, tmp_path: Path) -> SmallFactory:
    return await open_factory(database, market, tmp_path / "exports")


async def test_a_run_writes_what_the_pipeline_makes(factory: SmallFactory) -> None:
    spec = factory.spec(TEXTS)
    run = await factory.begin(spec)
    heard: list[int] = []
    await factory.carry_through(run, advance=heard.append)
    assert files_in(factory.folder) == factory.expected(spec)
    assert heard == [10, 10, 10, 10, 5] * 2
    async with factory.database.reading() as session:
        stored = await runs.run_with(session, run.run_id)
        assert (stored.state, await runs.codes_written(session, run.run_id)) == (RunState.FINISHED, 90)


async def test_files_are_their_owners_alone(factory: SmallFactory) -> None:
    await factory.carry_through(await factory.begin(factory.spec()))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in factory.folder.iterdir()}
    assert modes == dict.fromkeys(("outer.csv", "inner.csv", "manifest.json", "manifest.sig"), 0o600)


@pytest.mark.parametrize("good", range(SECTIONS))
async def test_a_run_that_breaks_anywhere_goes_on_where_it_stood(factory: SmallFactory, good: int) -> None:
    spec = factory.spec(TEXTS)
    run = await factory.begin(spec)
    with pytest.raises(WorkerLost):
        await factory.carry_through(run, FailingEngine(factory.job(run), factory, good, WorkerLost("gone")))
    assert not (factory.folder / "outer.csv").exists()
    async with factory.database.reading() as session:
        assert (await runs.run_with(session, run.run_id)).state == RunState.STOPPED
        assert len(await runs.written(session, run)) <= good
    await factory.carry_through(await factory.take_up(run))
    assert files_in(factory.folder) == factory.expected(spec)


async def test_bytes_that_were_written_but_not_recorded_are_written_again(
    factory: SmallFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = factory.spec(TEXTS)
    run = await factory.begin(spec)
    step, calls = runs.step, iter(range(100))

    async def dying(*args: Any) -> None:
        if next(calls) == 4:
            raise OSError("the power went")
        await step(*args)

    monkeypatch.setattr(production.runs, "step", dying)
    with pytest.raises(OSError, match="power"):
        await factory.carry_through(run)
    monkeypatch.undo()
    work = factory.folder / f".run-{run.run_id}"
    with (work / "outer.csv").open("ab") as file:
        file.write(b"half a li")
    (work / "unknown.csv").write_bytes(b"of a section that was never recorded")
    await factory.carry_through(await factory.take_up(run))
    assert files_in(factory.folder) == factory.expected(spec)


@pytest.mark.parametrize("moment", ["publish", "write", "finish"])
async def test_a_run_killed_while_it_is_published_is_published_again(
    factory: SmallFactory, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    spec = factory.spec(TEXTS)
    run = await factory.begin(spec)

    def dies(*_args: Any) -> Any:
        raise KeyboardInterrupt

    publish = RunFiles.publish

    def publishes_one(files: RunFiles) -> None:
        whole = files._bytes
        files._bytes = dict(list(whole.items())[:1])
        publish(files)
        dies()

    if moment == "publish":
        monkeypatch.setattr(RunFiles, "publish", publishes_one)
    else:
        monkeypatch.setattr(manifest if moment == "write" else production.runs, moment, dies)
    with pytest.raises(KeyboardInterrupt):
        await factory.carry_through(run)
    monkeypatch.undo()
    await factory.carry_through(await factory.take_up(run))
    assert files_in(factory.folder) == factory.expected(spec)
    assert not (factory.folder / f".run-{run.run_id}").exists()


@pytest.mark.parametrize("how", ["changed", "shortened", "removed"])
async def test_a_file_that_was_tampered_with_is_noticed(factory: SmallFactory, how: str) -> None:
    run = await factory.begin(factory.spec())
    with pytest.raises(WorkerLost):
        await factory.carry_through(run, FailingEngine(factory.job(run), factory, 3, WorkerLost("gone")))
    path = factory.folder / f".run-{run.run_id}" / "outer.csv"
    content = path.read_bytes()
    if how == "changed":
        path.write_bytes(content.replace(b"/01/", b"/02/", 1))
    elif how == "shortened":
        os.truncate(path, len(content) - 1)
    else:
        path.unlink()
    with pytest.raises(ExportDamaged):
        await factory.carry_through(await factory.take_up(run))


async def test_a_lost_file_is_not_taken_from_an_earlier_run(factory: SmallFactory) -> None:
    await factory.carry_through(await factory.begin(factory.spec()))
    run = await factory.begin(factory.spec())
    with pytest.raises(WorkerLost):
        await factory.carry_through(run, FailingEngine(factory.job(run), factory, 3, WorkerLost("gone")))
    (factory.folder / f".run-{run.run_id}" / "outer.csv").unlink()
    with pytest.raises(ExportDamaged):
        await factory.carry_through(await factory.take_up(run))
    assert files_in(factory.folder) == factory.expected(factory.spec())


async def test_a_published_file_that_another_run_replaced_by_a_longer_one_is_noticed(
    factory: SmallFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest, "write", dies)
    run = await factory.begin(factory.spec())
    with pytest.raises(KeyboardInterrupt):
        await factory.carry_through(run)
    with (factory.folder / "outer.csv").open("ab") as file:
        file.write(b"more of them")
    monkeypatch.undo()
    with pytest.raises(ExportDamaged):
        await factory.carry_through(await factory.take_up(run))


@pytest.mark.parametrize("stage", ["check", "append", "publish"])
async def test_a_cancelled_run_keeps_its_files_locked_until_its_thread_is_done(
    factory: SmallFactory, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    run = await factory.begin(factory.spec())
    if stage == "check":
        with pytest.raises(WorkerLost):
            await factory.carry_through(run, FailingEngine(factory.job(run), factory, 3, WorkerLost("gone")))
        run = await factory.take_up(run)
    begun, ended, original = threading.Event(), threading.Event(), getattr(RunFiles, stage)

    def slow(*args: Any, **named: Any) -> Any:
        begun.set()
        time.sleep(0.5)
        with pytest.raises(RunBusy):
            RunFiles(factory.folder, run.run_id).require_idle()
        ended.set()
        return original(*args, **named)

    monkeypatch.setattr(RunFiles, stage, slow)
    making = asyncio.create_task(factory.carry_through(run))
    await asyncio.to_thread(begun.wait)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert ended.is_set()
    async with factory.database.reading() as session:
        assert (await runs.run_with(session, run.run_id)).state == RunState.STOPPED
    monkeypatch.undo()
    await factory.carry_through(await factory.take_up(run))
    assert files_in(factory.folder) == factory.expected(factory.spec())


async def test_two_processes_cannot_work_on_one_run(factory: SmallFactory) -> None:
    run = await factory.begin(factory.spec())
    with RunFiles(factory.folder, run.run_id).held(), pytest.raises(RunBusy):
        await factory.carry_through(run)
    await factory.carry_through(await factory.take_up(run))


async def test_a_worker_whose_run_was_taken_up_elsewhere_stops(factory: SmallFactory) -> None:
    run = await factory.begin(factory.spec())
    async with factory.database.writing() as session:
        elsewhere = await runs.take_up(session, await runs.run_with(session, run.run_id), b"\1" * 32, run.created_at)
    assert elsewhere.holder != run.holder
    with pytest.raises(RunStopped):
        await factory.carry_through(run)
    async with factory.database.reading() as session:
        assert (await runs.run_with(session, run.run_id)).state == RunState.RUNNING  # the other's work goes on


async def test_a_cancelled_run_stops_with_its_next_chunk_and_can_go_on(factory: SmallFactory) -> None:
    spec = factory.spec()
    run = await factory.begin(spec)
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Task[bool]] = []

    async def cancel() -> bool:
        async with factory.database.writing() as session:
            return await runs.stop(session, await runs.run_with(session, run.run_id))

    def advance(_count: int) -> None:
        if not waiting:
            waiting.append(loop.create_task(cancel()))

    with pytest.raises(RunStopped):
        await factory.carry_through(run, advance=advance)
    assert await waiting[0] is True
    assert await cancel() is False
    await factory.carry_through(await factory.take_up(run))
    assert files_in(factory.folder) == factory.expected(spec)


async def test_a_finished_run_is_not_taken_up(factory: SmallFactory) -> None:
    run = await factory.begin(factory.spec())
    await factory.carry_through(run)
    with pytest.raises(RunFinished):
        await factory.take_up(run)


async def test_an_unknown_run_is_refused(factory: SmallFactory) -> None:
    async with factory.database.reading() as session:
        with pytest.raises(RunUnknown):
            await runs.run_with(session, new_id())


async def test_a_run_that_does_not_fit_the_disk_is_refused_before_anything_is_written(
    factory: SmallFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = factory.spec(TEXTS)
    need = production.bytes_needed(factory.order, spec)
    run = await factory.begin(spec)
    monkeypatch.setattr("kit.files.free_bytes", lambda _folder: need - 1)
    with pytest.raises(DiskFull):
        await factory.carry_through(run)
    assert files_in(factory.folder) == {}
    monkeypatch.setattr("kit.files.free_bytes", lambda _folder: need)
    await factory.carry_through(await factory.take_up(run))
    assert files_in(factory.folder) == factory.expected(spec)


async def test_a_disk_that_fills_up_stops_the_run_and_room_lets_it_go_on(
    database: Database, market: Market, tmp_path: Path
) -> None:
    factory = await open_factory(database, market, tmp_path / "exports", quantity=12_000)
    spec = factory.spec(section_items=1_000)
    run = await factory.begin(spec)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, hard))  # to a writer the same as a disk without room
    try:
        with pytest.raises(DiskFull, match=r"no room left for outer\.csv") as refused:
            await factory.carry_through(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"resume --run {run.run_id}" in refused.value.hint
    async with factory.database.reading() as session:
        assert (await runs.run_with(session, run.run_id)).state == RunState.STOPPED
        assert await runs.codes_written(session, run.run_id) == 8_000
    await factory.carry_through(await factory.take_up(run))
    assert files_in(factory.folder) == factory.expected(spec)


async def test_a_run_with_an_earlier_ones_files_in_its_folder_takes_their_place(factory: SmallFactory) -> None:
    spec = factory.spec()
    for _ in range(2):
        await factory.carry_through(await factory.begin(spec))
    assert files_in(factory.folder) == factory.expected(spec)


async def test_the_manifest_names_every_file_and_chunk_and_is_signed_by_the_orders_key(factory: SmallFactory) -> None:
    run = await factory.begin(factory.spec(TEXTS))
    await factory.carry_through(run)
    keys = {factory.market.key.kid: Signer(Algorithm.ED25519, factory.market.key.public)}
    read = manifest.read(factory.folder, keys)
    assert (read.kid, read.codes, read.content["run"]) == (factory.market.key.kid, 90, str(run.run_id))
    assert {file.path: file.bytes for file in read.files} == {
        path: len(content) for path, content in files_in(factory.folder).items()
    }
    chunks = read.content["chunks"]
    assert [(chunk["face"], chunk["ranges"]) for chunk in chunks[:5]] == [
        ("outer", [[0, 9]]),
        ("outer", [[10, 19]]),
        ("outer", [[20, 29]]),
        ("outer", [[30, 39]]),
        ("outer", [[40, 44]]),
    ]
    heard: list[int] = []
    manifest.check_files(factory.folder, read, heard.append)
    assert sum(heard) == sum(file.bytes for file in read.files)


async def test_a_tampered_manifest_or_file_is_refused(factory: SmallFactory) -> None:
    await factory.carry_through(await factory.begin(factory.spec()))
    keys = {factory.market.key.kid: Signer(Algorithm.ED25519, factory.market.key.public)}
    path, signature = factory.folder / "manifest.json", factory.folder / "manifest.sig"
    content, signed = path.read_bytes(), signature.read_bytes()

    def refused() -> None:
        with pytest.raises(ManifestInvalid):
            manifest.read(factory.folder, keys)

    path.write_bytes(content.replace(b'"codes": 90', b'"codes": 91'))
    refused()
    path.write_bytes(content + b" ")
    refused()
    path.write_bytes(content)
    signature.write_bytes(signed.replace(signed[:1], b"0" if signed[:1] != b"0" else b"1", 1))
    refused()
    signature.write_bytes(b"no signature")
    refused()
    signature.write_bytes(signed)
    with pytest.raises(ManifestInvalid, match="not trusted"):
        manifest.read(factory.folder, {})
    read = manifest.read(factory.folder, keys)
    whole = (factory.folder / "outer.csv").read_bytes()
    (factory.folder / "outer.csv").write_bytes(whole[:-2] + b"0\n" if whole[-2:-1] != b"0" else whole[:-2] + b"1\n")
    with pytest.raises(FileAltered):
        manifest.check_files(factory.folder, read, lambda _count: None)
    (factory.folder / "outer.csv").unlink()
    with pytest.raises(FileAltered, match="missing"):
        manifest.check_files(factory.folder, read, lambda _count: None)
    path.unlink()
    with pytest.raises(ManifestMissing):
        manifest.read(factory.folder, keys)


@pytest.mark.parametrize("content", [b"[]", b"{}", b"{", b'{"kid": true, "format": "fanxing-manifest-1"}', b"\xff"])
async def test_what_is_no_manifest_is_refused(factory: SmallFactory, content: bytes) -> None:
    await factory.carry_through(await factory.begin(factory.spec()))
    (factory.folder / "manifest.json").write_bytes(content)
    with pytest.raises(ManifestInvalid):
        manifest.read(factory.folder, {1: Signer(Algorithm.ED25519, factory.market.key.public)})


async def test_a_manifest_holds_no_secret(factory: SmallFactory) -> None:
    await factory.carry_through(await factory.begin(factory.spec()))
    content = (factory.folder / "manifest.json").read_text()
    inner = files_in(factory.folder)["inner.csv"].splitlines()[1].split(b",")[1].decode()
    assert inner not in content
    assert json.loads(content)["format"] == "fanxing-manifest-1"


async def test_closing_an_engine_ends_its_thread(factory: SmallFactory) -> None:
    run = await factory.begin(factory.spec())
    engine = InlineEngine(factory.job(run), factory.access.signer(factory.order.recipe))
    await factory.carry_through(run, engine)
    with pytest.raises(RuntimeError, match="shutdown"):
        await engine.render(next(factory.spec().sections()))
