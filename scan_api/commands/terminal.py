"""What every command shares: settings, database, passphrase, and answers for people or for machines."""

import asyncio
import getpass
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from codes import log_queue
from codes.log_queue import NewEntry
from kit import settings as environment
from kit import vault as vaults
from kit.clock import iso
from kit.db import Database, Session
from kit.errors import ConfigurationError, FanxingError, Invalid, Unavailable
from kit.files import replacing
from kit.ids import derived_id
from kit.settings import Settings
from kit.vault import Vault
from offline_sdk.bundle import Bundle
from offline_sdk.errors import VerifyError
from offline_sdk.root import format_pin, read_pin
from offline_sdk.trust_store import read_trust
from scan_api.withdrawals import withdrawn
from signer import publication, roots, service
from signer.keys import take_turn
from signer.publication import TrustBundle, TrustBundleRefused
from signer.service import SigningAccess, SigningService


class DatabaseRefused(Unavailable):
    code = "DatabaseRefused"


class FileRefused(Unavailable):
    code = "FileRefused"


class ArgumentInvalid(Invalid):
    code = "ArgumentInvalid"


class PassphraseMismatch(Invalid):
    code = "PassphraseMismatch"


class ExtraMissing(Unavailable):
    code = "ExtraMissing"


Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")]

_JSON_PROGRESS_S = 1
_ANY_WIDTH = 10_000

# Names and reasons are the callers' own text: shown as they are, never read as markup.
out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)


@dataclass(frozen=True)
class Workshop:
    """What a command works with."""

    settings: Settings
    database: Database

    @cached_property
    def vault(self) -> Vault:
        return vaults.load(self.settings.vault_key_path)

    @cached_property
    def signer(self) -> SigningService:
        return self.custody_access.open()

    @cached_property
    def custody_access(self) -> SigningAccess:
        """What a worker needs to sign by itself. The passphrase is asked for once, however many keys it opens."""
        return custody_access(self.settings)

    @property
    def pin(self) -> bytes:
        """The root's fingerprint, 32 bytes. Raises ConfigurationError when there is no root yet."""
        path = self.settings.root_pin_path
        try:
            return read_pin(path.read_bytes())
        except OSError:
            raise ConfigurationError(f"FANXING_HOME: no root pin at {path}", hint="Run `fanxing init`.") from None
        except VerifyError as error:
            raise ConfigurationError(f"FANXING_HOME: {path}: {error.message}") from None

    def write_pin(self, fingerprint: bytes) -> None:
        with replacing(self.settings.root_pin_path) as file:
            file.write(format_pin(fingerprint))

    async def trusted_bundle(self, session: Session) -> Bundle:
        """The newest trust bundle, followed from the pin. Raises TrustBundleMissing, ConfigurationError."""
        published = await publication.latest(session)
        root = await roots.current(session, self.pin)
        try:
            return Bundle.load(published.document, root.publishers)
        except VerifyError as error:
            raise ConfigurationError(
                f"FANXING_HOME: trust bundle {published.seq} does not follow from {self.settings.root_pin_path}: "
                f"{error.message}"
            ) from None

    async def publish(
        self,
        session: Session,
        now: datetime,
        lifetime: timedelta = publication.LIFETIME_DEFAULT,
        pin: bytes | None = None,
    ) -> TrustBundle:
        """Publish the next trust bundle, in the transaction that changed what it says.

        It tells of recalled orders and voided items too. `pin`: when the root's file is not written yet.
        """
        # First: what is read before the turn comes may be older than the bundle that it would replace.
        await take_turn(session)
        refused = await withdrawn(session, self.vault)
        for gtin, order in refused.left_out:
            err.print(
                f"Scanners are not told which items of order {order:05d} of {gtin} are voided: there are too many."
            )
        made = await publication.publish(session, self.signer, pin or self.pin, now, lifetime, refused)
        told = {"type": "trust_bundle", "seq": made.seq, "sha256": made.sha256, "at": iso(now)}
        subject = derived_id("trust-bundle", str(made.seq))
        await log_queue.enqueue(session, [NewEntry("trust_bundle", subject, None, log_queue.record_of(told))], now)
        return made


@asynccontextmanager
async def workshop(*, signs: bool = False, rooted: bool = True) -> AsyncIterator[Workshop]:
    """Settings read, database open. `signs`: the passphrase is asked for now, since nobody waits in a transaction.

    Unless `rooted`, there need be no root yet. Raises ConfigurationError.
    """
    settings = environment.load()
    shop = Workshop(settings, Database(settings.database))
    if signs:
        _ = shop.pin if rooted else None
        _ = shop.custody_access
    try:
        yield shop
    finally:
        await shop.database.close()


def custody_access(settings: Settings) -> SigningAccess:
    """How this installation reaches its private keys. Raises ConfigurationError."""
    return service.custody_access(settings, lambda: passphrase(settings), lambda: _pin(settings))


def _pin(settings: Settings) -> str:
    """The token's PIN: from its file, or asked for at a terminal. Raises ConfigurationError."""
    path = settings.pkcs11_pin_file
    if path is None:
        if not sys.stdin.isatty():
            raise ConfigurationError(
                "FANXING_PKCS11_PIN_FILE: not set, and no terminal to ask at",
                hint="Point the variable at a file that only you can read.",
            )
        return getpass.getpass(f"PIN of the token {settings.pkcs11_token}: ")
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError):
        raise ConfigurationError(f"FANXING_PKCS11_PIN_FILE: cannot read {path}") from None


def passphrase(settings: Settings) -> str:
    """The signer's passphrase: from its file, or asked for at a terminal. Raises ConfigurationError."""
    path = settings.signer_passphrase_path
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        if not sys.stdin.isatty():
            raise ConfigurationError(
                f"FANXING_SIGNER_PASSPHRASE_FILE: no passphrase at {path}, and no terminal to ask at",
                hint="Point the variable at a file that only you can read.",
            ) from None
    if any(settings.keys_folder.glob("*.key.json")):
        return getpass.getpass("Passphrase of the private keys: ")
    chosen = getpass.getpass("Choose a passphrase for the private keys: ")
    if getpass.getpass("Once more: ") != chosen:
        raise PassphraseMismatch("the two passphrases differ", hint="No key was made. Run the command again.")
    return chosen


def run(work: Callable[[], Awaitable[Any]], *, as_json: bool, show: Callable[[Any], None]) -> None:
    """Do a command's work and show its result; a refusal is told, with what to do next, and exits with 1."""
    try:
        result = asyncio.run(_awaited(work))
    except FanxingError as error:
        refuse(error, as_json=as_json)
    except SQLAlchemyError as error:
        refuse(database_refused(error), as_json=as_json)
    except OSError as error:
        refuse(FileRefused(f"{error.filename}: {error.strerror}"), as_json=as_json)
    except (OverflowError, UnicodeError):
        refuse(ArgumentInvalid("an argument is a number too large, or text that is not UTF-8"), as_json=as_json)
    if as_json:
        print_json(result)
    else:
        show(result)


def database_refused(error: SQLAlchemyError) -> DatabaseRefused:
    """What to tell of a database that is away, or that has no tables."""
    # The driver's message names tables and addresses, which are the operator's own; parameters stay out of it.
    message = str(getattr(error, "orig", None) or type(error).__name__).splitlines()[0]
    return DatabaseRefused(message, hint="Is FANXING_DATABASE_URL right, and was `fanxing init` run?")


async def _awaited(work: Callable[[], Awaitable[Any]]) -> Any:
    return await work()


def refuse(error: FanxingError, *, as_json: bool) -> NoReturn:
    """Tell a refusal and exit with 1."""
    if as_json:
        body = {"code": error.code, "message": error.message, "hint": error.hint}
        print_json({"error": {key: value for key, value in body.items() if value}})
    else:
        err.print(Text.assemble((error.code, "red"), f": {error.message}"), soft_wrap=True)
        if error.hint:
            err.print(error.hint)
    raise typer.Exit(1)


def print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def trusted_bundle(trust: Path, root: Path) -> Bundle:
    """A brand's trust bundle from its two files, for who has no database. Raises TrustBundleRefused."""
    try:
        return read_trust(trust.read_bytes(), read_pin(root.read_bytes())).held_bundle
    except VerifyError as error:
        raise TrustBundleRefused(f"{trust}: {error.message}", hint="Get both files from the brand anew.") from None


@contextmanager
def progress(doing: str, unit: str, total: int, *, as_json: bool) -> Iterator[Callable[[int], None]]:
    """Tell how far long work is, with rate and remaining time; the callable hears how much more is done.

    A bar for people; for machines a JSON line on standard error now and then: {"done", "total", "rate", "remaining_s"}.
    """
    if as_json:
        yield _JsonProgress(total).advance
        return
    columns = (
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit},"),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda count: bar.advance(task, count)


class _Rate(ProgressColumn):
    """How much a second so far."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "…/s")


class _JsonProgress:
    """A line a second at most, and one at the end."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._told, self._told_done = time.monotonic(), 0

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._told < _JSON_PROGRESS_S and self._done < self._total:
            return
        # Since the last line: what an earlier process did is heard of at once, and was not done at that rate.
        rate = (self._done - self._told_done) / max(now - self._told, 1e-9)
        self._told, self._told_done = now, self._done
        line = {
            "done": self._done,
            "total": self._total,
            "rate": round(rate),
            "remaining_s": round((self._total - self._done) / rate, 1) if rate else None,
        }
        sys.stderr.write(json.dumps(line) + "\n")
        sys.stderr.flush()


def table(rows: Sequence[dict[str, Any]], empty: str) -> None:
    """Rows as a table with their keys as headings; rows too long for the terminal as a block of lines each.

    Nothing is cut or folded: an id in pieces cannot be copied.
    """
    if not rows:
        out.print(empty)
        return
    shown = Table(box=None, pad_edge=False)
    for key in rows[0]:
        shown.add_column(key.replace("_", " "), no_wrap=True)
    for row in rows:
        shown.add_row(*map(cell, row.values()))
    if Measurement.get(out, out.options.update(max_width=_ANY_WIDTH), shown).maximum <= out.width:
        out.print(shown)
        return
    for number, row in enumerate(rows):
        if number:
            out.print()
        fields(row)


def fields(record: Mapping[str, Any]) -> None:
    """A record as lines of name and value; what is empty is left out."""
    for name, value in record.items():
        if text := cell(value):
            out.print(f"{name.replace('_', ' ')}: {text}", soft_wrap=True)


def cell(value: Any) -> str:
    """A value for people."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
