"""The worker that makes exports, part by part, and deletes those that are over."""

import asyncio
import contextlib
import hashlib
import json
import shutil
from pathlib import Path
from typing import Final

import structlog

from kit.clock import Clock
from kit.db import Database, Session
from kit.errors import Conflict, FanxingError
from kit.files import PRIVATE_MODE, make_folder, replacing, require_free
from scan_api.auth.api_keys import ApiKey
from scan_api.regulators import accesses, accounts, export_rows, exports, keys, tally_sources
from scan_api.regulators.accounts import RegulatorAccount
from scan_api.regulators.exports import BYTES_MAX, ROWS_MAX, ExportLost, RegulatorExport, RegulatorExportPart
from scan_api.regulators.scope import Scope

_log = structlog.get_logger()

PAUSE_S: Final = 5.0
TURNS_BETWEEN_SWEEPS: Final = 12
FREE_BYTES_MIN: Final = 1024**3
"""Left on the disk, or nothing is written."""


class ExportRefused(Conflict):
    """An export cannot be made any further; the code is what its regulator is told."""

    code = "ExportRefused"


async def work_once(database: Database, home: Path, clock: Clock) -> bool:
    """Make one waiting export, or the rest of one that was left. Whether there was one."""
    async with database.writing() as session:
        held = await exports.take(session, clock())
    if held is None:
        return False
    try:
        await _make(database, home, held, clock)
    except ExportLost:
        _log.info("export lost", export=str(held.export_id))
    except FanxingError as error:
        await _give_up(database, home, held, error.message, clock)
    return True


async def _make(database: Database, home: Path, held: RegulatorExport, clock: Clock) -> None:
    while await _make_part(database, home, held, clock):
        pass
    async with database.writing() as session:
        await exports.finish(session, held, clock())


async def _give_up(database: Database, home: Path, held: RegulatorExport, why: str, clock: Clock) -> None:
    with contextlib.suppress(ExportLost):
        async with database.writing() as session:
            await exports.fail(session, held, why, clock())
        await _delete(home, held)


async def _delete(home: Path, export: RegulatorExport) -> None:
    await asyncio.to_thread(shutil.rmtree, exports.folder_of(home, export.export_id), ignore_errors=True)


async def _make_part(database: Database, home: Path, held: RegulatorExport, clock: Clock) -> bool:
    """Make the next part; whether there may be another. Raises ExportLost, and what refuses the export."""
    spec = held.asked
    async with database.reading() as session:
        exports.require_within(held, await _scope(session, held, clock))
        reach = await export_rows.reach_of(session, spec)
        position = json.loads(held.position) if held.position else None
        batch = await export_rows.read(session, reach, spec, position, held.created_at)
    part = None
    if batch.rows:
        content = await asyncio.to_thread(export_rows.written, spec.kind, spec.format, batch.rows)
        if held.rows + len(batch.rows) > ROWS_MAX or held.size_bytes + len(content) > BYTES_MAX:
            raise ExportRefused(f"more than {ROWS_MAX:,} rows or {BYTES_MAX:,} bytes; ask for less at once")
        number = held.parts
        await asyncio.to_thread(_write, exports.path_of(home, held, number), content)
        part = RegulatorExportPart(
            export_id=held.export_id,
            number=number,
            rows=len(batch.rows),
            size_bytes=len(content),
            sha256=hashlib.sha256(content).digest(),
        )
    async with database.writing() as session:
        await exports.advance(session, held, part, batch.position, batch.by_brand, clock())
    return batch.position is not None


async def _scope(session: Session, held: RegulatorExport, clock: Clock) -> Scope:
    """What the export may see by now: a key that was revoked, or an account that ended, sees nothing more."""
    key = await session.get_one(ApiKey, held.key_id)
    if key.revoked_at is not None:
        raise ExportRefused("the key that asked for it was revoked")
    account_id = await keys.account_of(session, key, clock())
    account = None if account_id is None else await session.get_one(RegulatorAccount, account_id)
    return accounts.scope_of(key, account)


def _write(path: Path, content: bytes) -> None:
    make_folder(path.parent)
    require_free(path.parent, len(content) + FREE_BYTES_MIN)
    with replacing(path, PRIVATE_MODE) as file:
        file.write(content)


async def sweep(database: Database, home: Path, clock: Clock) -> None:
    """Delete the files of exports that are over, and forget looks that need no longer be kept."""
    async with database.reading() as session:
        over = await exports.over(session, clock())
    for export in over:
        await _delete(home, export)
        async with database.writing() as session:
            await exports.drop(session, export, clock())
    async with database.writing() as session:
        await accesses.sweep(session, clock())


async def run(database: Database, home: Path, clock: Clock, stop: asyncio.Event) -> None:
    """Make exports, keep tallies up, and delete what is over, till `stop`."""
    turn = 0
    while not stop.is_set():
        try:
            while await work_once(database, home, clock):
                pass
            if turn % TURNS_BETWEEN_SWEEPS == 0:
                await tally_sources.keep_up(database, clock)
                await sweep(database, home, clock)
        except Exception:
            _log.exception("regulators' work failed, will try again")
        turn += 1
        await asyncio.sleep(PAUSE_S)
