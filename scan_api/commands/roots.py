"""Root documents: who may publish trust bundles, changed by so many of the root keys' holders."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from kit.clock import iso, system_clock
from kit.errors import Conflict, Invalid
from kit.files import replacing
from offline_sdk.algorithms import Algorithm
from offline_sdk.cose import Signer
from offline_sdk.errors import VerifyError
from offline_sdk.root import Root
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, Workshop, out
from signer import roots

DRAFT_BYTES_MAX = 64 * 1024

root = typer.Typer(help="Root documents: who may publish, and who may change that.", no_args_is_help=True)

AlgorithmName = Annotated[
    str, typer.Option("--algorithm", help="Ed25519, or P-256 for hardware that lacks it.", metavar="ALGORITHM")
]
Draft = Annotated[Path, typer.Argument(help="The root document's file.", dir_okay=False)]


class DraftExists(Conflict):
    code = "DraftExists"


class SignerInvalid(Invalid):
    code = "SignerInvalid"


@root.command("key")
def create_key(
    name: Annotated[str, typer.Argument(help="Its name in custody, like root-2 or publisher-2.")],
    algorithm: AlgorithmName = Algorithm.ED25519.label,
    as_json: Json = False,
) -> None:
    """Make a key for root documents or trust bundles, and print its public side. It counts once a root names it."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop(signs=True, rooted=False) as shop, shop.database.writing() as session:
            made = await roots.create_document_key(
                session, shop.signer, name, algorithm_named(algorithm), system_clock()
            )
            return {"name": made.custody_name, "key": _written(made.signer), "kid": made.signer.kid.hex()}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@root.command("keys")
def list_keys(as_json: Json = False) -> None:
    """The keys in this custody that sign documents, and what the current root lets them do."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            now = await _current(shop)
            return [
                {
                    "name": key.custody_name,
                    "key": _written(key.signer),
                    "kid": key.signer.kid.hex(),
                    "root": bool(now and key.signer in now.keys),
                    "publisher": bool(now and key.signer in now.publishers),
                    "created_at": iso(key.created_at),
                }
                for key in await roots.document_keys(session)
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No key for documents yet."))


@root.command("show")
def show(
    file: Annotated[Path | None, typer.Argument(help="A root document's file; without it, the current root.")] = None,
    as_json: Json = False,
) -> None:
    """What a root document says, and who has signed it."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            if file is not None:
                return _about(_read(file), await _current(shop))
            rows = await roots.chain(session)
            await roots.current(session, shop.pin)
            return {"pin": shop.pin.hex(), **_about(rows[-1].document, None)}

    terminal.run(work, as_json=as_json, show=_show)


@root.command("draft")
def draft(
    file: Annotated[Path, typer.Option("--out", help="Where to write the draft.")],
    root_key: Annotated[list[str] | None, typer.Option(help="A root's key (ALGORITHM:HEX); default: as now.")] = None,
    threshold: Annotated[int | None, typer.Option(help="How many roots must sign; default: as now.")] = None,
    publisher: Annotated[list[str] | None, typer.Option(help="A publisher's key; default: as now.")] = None,
    days: Annotated[int, typer.Option(help="Days until it expires.")] = roots.ROOT_LIFETIME_DEFAULT.days,
    as_json: Json = False,
) -> None:
    """Write the next root document, unsigned: a renewal, or with other keys. Bring it to the root keys' holders."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop:
            if file.exists():
                raise DraftExists(f"there is {file} already, maybe with signatures on it", hint="Name another file.")
            now = await _current(shop)
            document = roots.draft(
                now.domain if now else shop.settings.trust_domain,
                now.version + 1 if now else roots.FIRST_VERSION,
                [_signer(text) for text in root_key] if root_key else list(now.keys if now else ()),
                threshold if threshold is not None else (now.threshold if now else 1),
                [_signer(text) for text in publisher] if publisher else list(now.publishers if now else ()),
                system_clock(),
                timedelta(days=days),
            )
            with replacing(file) as handle:
                handle.write(document)
            return {"file": str(file), **_about(document, now)}

    terminal.run(work, as_json=as_json, show=_show)


@root.command("sign")
def sign(
    file: Draft,
    name: Annotated[str, typer.Option("--key", help="The key's name in custody.")],
    yes: Annotated[bool, typer.Option("--yes", help="Sign; without it the document is only shown.")] = False,
    as_json: Json = False,
) -> None:
    """Add a signature to a root document. Read first what it says: whoever signs answers for it."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop(signs=yes, rooted=False) as shop:
            document = _read(file)
            if yes:
                document = roots.sign(shop.signer, name, document)
                with replacing(file) as handle:
                    handle.write(document)
            return {**_about(document, await _current(shop)), **({} if yes else {"dry_run": True})}

    terminal.run(work, as_json=as_json, show=_show)


@root.command("install")
def install(file: Draft, as_json: Json = False) -> None:
    """Take up a root document that enough roots have signed, and publish a trust bundle under it."""

    async def work() -> dict[str, Any]:
        now = system_clock()
        async with terminal.workshop(signs=True, rooted=False) as shop:
            first = not shop.settings.root_pin_path.exists()
            async with shop.database.writing() as session:
                taken = await roots.install(session, _read(file), None if first else shop.pin, now)
                pin = taken.fingerprint if first else shop.pin
                published = await shop.publish(session, now, pin=pin)
            if first:  # not before: a pin of a root that the database does not keep would bar every other
                shop.write_pin(pin)
            return {"version": taken.version, "pin": pin.hex(), "bundle_seq": published.seq}

    terminal.run(work, as_json=as_json, show=terminal.fields)


async def _current(shop: Workshop) -> Root | None:
    """The root in force, or None where there is none yet."""
    async with shop.database.reading() as session:
        return await roots.current(session, shop.pin) if await roots.chain(session) else None


def _read(file: Path) -> bytes:
    with file.open("rb") as handle:
        return handle.read(DRAFT_BYTES_MAX)


def algorithm_named(label: str) -> Algorithm:
    """The algorithm that a person named. Raises SignerInvalid."""
    try:
        return Algorithm.labelled(label)
    except ValueError:
        raise SignerInvalid(
            f"the algorithm is one of {', '.join(algorithm.label for algorithm in Algorithm)}"
        ) from None


def _signer(text: str) -> Signer:
    label, _, public = text.partition(":")
    try:
        return Signer(algorithm_named(label), bytes.fromhex(public))
    except (ValueError, VerifyError):
        raise SignerInvalid(
            "a key is written ALGORITHM:HEX, as `fanxing root key` prints it", hint="Compare it digit by digit."
        ) from None


def _moment(seconds: int) -> str:
    return iso(datetime.fromtimestamp(seconds, UTC))


def _written(signer: Signer) -> str:
    return f"{signer.algorithm.label}:{signer.public.hex()}"


def _about(document: bytes, before: Root | None) -> dict[str, Any]:
    """What a root document says, who signed it, and how it differs from the root in force."""
    told = roots.read_draft(document)
    signed = roots.signed_by(document, [*told.keys, *(before.keys if before else ())])
    about: dict[str, Any] = {
        "domain": told.domain,
        "version": told.version,
        "fingerprint": told.fingerprint.hex(),
        "issued": _moment(told.issued),
        "expires": _moment(told.expires),
        "root_keys": [_written(key) for key in told.keys],
        "threshold": f"{told.threshold} of {len(told.keys)}",
        "publishers": [_written(key) for key in told.publishers],
        "signed_by": [signer.kid.hex() for signer in signed],
        "signatures": f"{sum(signer in told.keys for signer in signed)} of the {told.threshold} needed of its own",
    }
    if before is not None and before.version != told.version:
        right = sum(signer in before.keys for signer in signed)
        about["signatures_before"] = f"{right} of the {before.threshold} needed of version {before.version}"
        about["new"] = [
            _written(key) for key in (*told.keys, *told.publishers) if key not in (*before.keys, *before.publishers)
        ]
        about["gone"] = [
            _written(key) for key in (*before.keys, *before.publishers) if key not in (*told.keys, *told.publishers)
        ]
    return about


def _show(result: dict[str, Any]) -> None:
    terminal.fields({name: value for name, value in result.items() if name != "dry_run"})
    if result.get("dry_run"):
        out.print("Nothing was signed. Say --yes to sign.")
