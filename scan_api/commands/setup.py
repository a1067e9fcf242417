"""Setting an installation up, and serving it."""

import asyncio
import gc
import secrets
from pathlib import Path
from typing import Any

import typer
import uvicorn
from sqlalchemy.exc import SQLAlchemyError

import migrations
from kit import logging, procedures
from kit import settings as environment
from kit.clock import system_clock
from kit.db import Database
from kit.errors import FanxingError
from kit.files import write_secret
from kit.settings import Settings
from kit.vault import new_key
from offline_sdk.algorithms import Algorithm
from scan_api import socket_protocol
from scan_api.app import create_app
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, Workshop, out
from scan_api.http_protocol import LimitedProtocol
from scan_api.procedures import PROCEDURES
from scan_api.services import build
from scan_api.transparency import log_key, store
from scan_api.trust import Trust
from signer import roots

_PASSPHRASE_BYTES = 24
CONNECTIONS_MAX = 1_000
"""Open at a time in one process; one more is answered 503."""


def init(
    as_json: Json = False,
    make_passphrase: bool = typer.Option(
        False, help="Also make a random passphrase file. Move it to safety: it opens every private key."
    ),
    with_root: bool = typer.Option(
        True,
        "--root/--without-root",
        help="Make root and publisher keys; without, for a machine that only keeps keys, or installs a root by hand.",
    ),
) -> None:
    """Make data folder, vault key, database schema, root, publisher and transparency log.

    Run again, it makes what is missing.
    """
    terminal.run(lambda: _init(make_passphrase, with_root), as_json=as_json, show=_show_init)


async def _init(make_passphrase: bool, with_root: bool) -> dict[str, Any]:
    async with terminal.workshop() as shop:
        made = await prepare(shop, make_passphrase=make_passphrase, with_root=with_root)
        rooted = shop.settings.root_pin_path.exists()
        database = _database_name(shop.settings)
        async with shop.database.reading() as session:
            head = await store.find_head(session)
        return {
            "home": str(shop.settings.home),
            "database": database,
            "rooted": rooted,
            "log": head.origin if head else None,
            "made": made,
        }


async def prepare(shop: Workshop, *, make_passphrase: bool, with_root: bool = True) -> list[str]:
    """Make what an installation lacks; returns the files made."""
    made: list[str] = []
    settings = shop.settings
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if make_passphrase:
        _secret(settings.signer_passphrase_path, secrets.token_urlsafe(_PASSPHRASE_BYTES), made)
    _secret(settings.vault_key_path, new_key().hex(), made)
    await migrations.upgrade(shop.database)
    await procedures.install(shop.database, PROCEDURES)
    if with_root and not settings.root_pin_path.exists():
        async with shop.database.writing() as session:
            first = (await roots.chain(session))[:1]
            if first:  # made by a run that was stopped here, or the database is older than this folder
                fingerprint = bytes.fromhex(first[0].fingerprint)
            else:
                # A KMS signs at most 4,096 bytes by Ed25519, and bundles are longer; by P-256 it signs their hash.
                algorithm = Algorithm.ESP256 if settings.custody == "kms" else Algorithm.ED25519
                made_now = await roots.establish(session, shop.signer, settings.trust_domain, system_clock(), algorithm)
                fingerprint = made_now.fingerprint
        shop.write_pin(fingerprint)
        made.append(str(settings.root_pin_path))
    # A token's or a KMS's key is made by hand: `fanxing log init`.
    if with_root and settings.custody == "file":
        async with shop.database.writing() as session:
            if await store.find_head(session) is None:
                await log_key.begin(session, settings, system_clock())
                made.append(str(settings.home / log_key.PASSPHRASE_FILE))
    return made


def _secret(path: Path, content: str, made: list[str]) -> None:
    if not path.exists():
        write_secret(path, content.encode() + b"\n")
        made.append(str(path))


def _database_name(settings: Settings) -> str:
    # A PostgreSQL URL may carry a password.
    return settings.database if settings.database.startswith("sqlite") else settings.database.rsplit("@", 1)[-1]


def _show_init(result: dict[str, Any]) -> None:
    out.print(f"Data folder {result['home']}, database {result['database']}.")
    for path in result["made"]:
        out.print(f"Made {path}")
    out.print(f"Transparency log: {result['log'] or 'none, `fanxing log init` begins it'}")
    next_step = "issuer create --name … --gtin-prefix …" if result["rooted"] else "root key NAME"
    out.print(f"Next: `fanxing {next_step}`")


def serve() -> None:
    """Serve the API on FANXING_HOST and FANXING_PORT until it is stopped."""
    try:
        settings = environment.load()
        logging.configure(settings.log_level)
        services = build(settings)
        asyncio.run(_check(settings))
    except FanxingError as error:
        terminal.refuse(error, as_json=False)
    except SQLAlchemyError as error:
        terminal.refuse(terminal.database_refused(error), as_json=False)
    app = create_app(services)
    # What was made so far stays for ever: looking through it for garbage took a tenth of a claim's time.
    gc.collect()
    gc.freeze()
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        http=LimitedProtocol,
        **socket_protocol.OPTIONS,
        limit_concurrency=CONNECTIONS_MAX,
        # Its access log would hold the paths of inner codes; the application writes its own, without them.
        access_log=False,
        log_config=None,
        server_header=False,
        # Whom to believe about the caller's address is FANXING_TRUSTED_PROXIES' to say; see scan_api.callers.
        proxy_headers=False,
        timeout_graceful_shutdown=10,
    )


async def _check(settings: Settings) -> None:
    """What would keep the server from starting is told of here, in one line; later it would be a traceback.

    A database that is away or has no tables, a root file that is missing or another installation's.
    """
    database = Database(settings.database)
    try:
        await Trust(database, settings.root_pin_path, system_clock).refresh()
        await procedures.check(database, PROCEDURES)
    finally:
        await database.close()
