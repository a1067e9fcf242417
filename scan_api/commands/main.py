"""The `fanxing` command: which subcommand stands in which module.

A module is imported when one of its commands is asked for: all of them together take three seconds.
"""

import atexit
import gc
import sys
from collections.abc import Collection
from importlib import import_module

import typer

COMMANDS = {
    "init": "setup:init",
    "serve": "setup:serve",
    "demo": "demo:demo",
    "openapi": "sandbox:print_openapi",
    "revoke": "trust:revoke",
    "issuer": "trust:issuer",
    "key": "trust:key",
    "bundle": "trust:bundle",
    "root": "roots:root",
    "brand": "catalogue:brand",
    "product": "catalogue:product",
    "api-key": "catalogue:api_key",
    "regulator": "regulators:regulator",
    "territory": "regulators:territory_app",
    "partner": "regulators:partner",
    "sandbox": "sandbox:sandbox",
    "webhook": "webhooks:webhook",
    "link": "links:link",
    "signer": "signer:signer",
    "order": "orders:order",
    "package": "packages:package",
    "device": "devices:device",
    "campaign": "campaigns:campaign",
    "benefit": "benefits:benefit",
    "member": "members:member",
    "consent": "members:consent",
    "crm": "crm:crm",
    "tier": "tiers:tier",
    "draw": "draws:draw",
    "earning": "earning:earning",
    "fulfilment": "fulfilment:fulfilment_app",
    "ledger": "ledger:ledger_app",
    "log": "log:log",
    "packing": "packing:packing",
    "life": "life:life",
}
"""Module in this package and its function or group, by the command's name, in the order of the help."""
COMMANDS_OF_ORDER = {
    "export": "runs:export_again",
    "resume": "runs:resume",
    "cancel": "runs:cancel",
    "runs": "runs:list_runs",
    "verify": "runs:verify",
    "preview": "preview:preview",
    "inspect": "inspection:inspect",
    "activate": "ranges:activate",
    "void": "ranges:void",
    "allot": "ranges:allot",
    "release": "ranges:release",
    "ranges": "ranges:list_ranges",
}


def build(names: Collection[str] = tuple(COMMANDS)) -> typer.Typer:
    """The command with these subcommands."""
    app = typer.Typer(
        help="Fanxing 繁星: one item, one code. FANXING_* environment variables configure it, see README.md.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # a traceback with local variables would print secrets
    )
    app.callback()(_nothing)  # a command with one subcommand is still asked for by its name
    for name in names:
        _add(app, name, COMMANDS[name])
    return app


def _add(app: typer.Typer, name: str, where: str) -> None:
    module, _, attribute = where.partition(":")
    made = getattr(import_module(f"scan_api.commands.{module}"), attribute)
    if not isinstance(made, typer.Typer):
        app.command(name)(made)
        return
    if name == "order" and not any(command.name == "export" for command in made.registered_commands):
        for own, place in COMMANDS_OF_ORDER.items():
            _add(made, own, place)
    app.add_typer(made, name=name)


def _nothing() -> None: ...


def run() -> None:
    """Entry point of the distribution."""
    asked = sys.argv[1:2]
    # What is loaded stays: to look through it for circles again and again is a fifth of the time to start.
    gc.disable()
    command = build(asked if asked and asked[0] in COMMANDS else COMMANDS)
    gc.freeze()
    atexit.register(gc.unfreeze)  # or the picture reader's binding reports all that it holds as leaked
    gc.enable()
    command()
