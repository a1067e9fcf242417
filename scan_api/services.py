"""Everything that one running server holds, made once at its start."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from kit import vault as vaults
from kit.clock import Clock, system_clock
from kit.db import Database
from kit.procedures import Caller
from kit.settings import Settings
from kit.vault import Vault
from loyalty.code_senders import CodeSender, sender_of
from loyalty.offers import Offers
from scan_api.claims import Claims
from scan_api.devices import WrongTries
from scan_api.metrics import Metrics
from scan_api.provenance.sockets import Sockets
from scan_api.regulators.refused_scans import RefusedScans
from scan_api.scans import Scans
from scan_api.streams import Streams
from scan_api.trust import Trust


@dataclass(frozen=True, slots=True)
class Services:
    """What routers work with."""

    settings: Settings
    database: Database
    vault: Vault
    trust: Trust
    scans: Scans
    caller: Caller
    claims: Claims
    offers: Offers
    sender: CodeSender
    metrics: Metrics
    refused_scans: RefusedScans
    wrong_enrolments: WrongTries
    streams: Streams
    sockets: Sockets
    clock: Clock


def build(settings: Settings, clock: Clock = system_clock) -> Services:
    """Open what the settings name. Raises ConfigurationError naming the variable."""
    database = Database(settings.database, settings.database_connections)
    vault = vaults.load(settings.vault_key_path)
    trust, scans = Trust(database, settings.root_pin_path, clock), Scans(vault)
    caller = Caller(database, settings.database_connections)
    return Services(
        settings=settings,
        database=database,
        vault=vault,
        trust=trust,
        scans=scans,
        caller=caller,
        claims=Claims(database, caller, vault, trust, scans),
        offers=Offers(database),
        sender=sender_of(settings),
        metrics=Metrics(),
        refused_scans=RefusedScans(database),
        wrong_enrolments=WrongTries(),
        streams=Streams(),
        sockets=Sockets(database),
        clock=clock,
    )


# A coroutine although nothing is awaited: the framework would send a plain function to a thread, for every request.
async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Serve = Annotated[Services, Depends(_services)]
