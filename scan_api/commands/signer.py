"""The signing agent of a machine whose workers hold no key."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from codes.signing_agent import SigningAgent, SigningRoom
from kit import settings as environment
from kit import vault as vaults
from kit.clock import system_clock
from kit.errors import FanxingError
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, out
from signer.service import SigningAccess

SOCKET_NAME = "signing-agent.sock"

signer = typer.Typer(help="Signing for workers without keys.", no_args_is_help=True)


@signer.command("agent")
def agent(
    path: Annotated[Path | None, typer.Option("--socket", help="Default: in the data folder.")] = None,
    as_json: Json = False,
) -> None:
    """Sign for the workers of this machine, each for the run that leased it, until the command is stopped.

    It needs this installation's private keys, with their passphrase or PIN, vault key and database.
    """
    try:
        settings = environment.load()
        custody = terminal.custody_access(settings)
        _try(custody)
        room = SigningRoom(settings.database, vaults.load(settings.vault_key_path), custody, system_clock)
        place = (path or settings.home / SOCKET_NAME).absolute()
        serving = SigningAgent(place, room)
    except FanxingError as error:
        terminal.refuse(error, as_json=as_json)
    except OSError as error:
        terminal.refuse(terminal.FileRefused(f"{error.filename or path}: {error.strerror}"), as_json=as_json)
    serving.serve(lambda: _tell(place, as_json=as_json))


def _try(custody: SigningAccess) -> None:
    """Make sure that PIN or role are right before workers come: each would try a wrong PIN, and tokens lock.

    In a process of its own, since few custodies outlive the forks that the agent makes later. Raises CustodyError.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(_reach, custody).result()


def _reach(custody: SigningAccess) -> None:
    custody.open().reach()


def _tell(place: Path, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json({"socket": str(place)})
        sys.stdout.flush()
    else:
        out.print(f"Signing for runs that lease it, at {place}. Ctrl-C ends it.", soft_wrap=True)
