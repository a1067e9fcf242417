"""Asking witnesses to cosign what was signed, and serving it with their cosignatures (C2SP tlog-witness)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final

import httpx2
import structlog
from sqlmodel import col, update

from kit.clock import Clock
from kit.db import Database, Session, table_of
from kit.errors import Conflict, Invalid, NotFound
from offline_sdk.errors import LogError
from offline_sdk.transparency import (
    AddCheckpoint,
    NoteSignature,
    SignatureType,
    SignedCheckpoint,
    VerifierKey,
    consistency_path,
    prove_consistency,
    read_signature_lines,
    subtrees_of,
)
from offline_sdk.transparency.checkpoint import WITNESSES_MAX
from offline_sdk.transparency.note import NOTE_BYTES_MAX
from offline_sdk.transparency.witness import ANSWER_SIZE
from scan_api.transparency import store
from scan_api.transparency.store import LogWitness

ANSWER_TIMEOUT_S: Final = 3.0
"""All that a witness has; what is served waits for it."""
ASKED_AGAIN_AFTER: Final = timedelta(seconds=30)
"""Since it failed: a witness that is away must not hold up every checkpoint."""
URL_CHARACTERS_MAX: Final = 500
_TROUBLE_CHARACTERS_MAX: Final = 200
_SIZE_DIGITS_MAX: Final = 16

_log = structlog.get_logger()


class WitnessInvalid(Invalid):
    """This can be no witness of the log."""

    code = "WitnessInvalid"


class WitnessExists(Conflict):
    """A witness of that name or key is there."""

    code = "WitnessExists"


class WitnessUnknown(NotFound):
    """The log has no such witness."""

    code = "WitnessUnknown"


async def add(session: Session, key_text: str, url: str, now: datetime) -> LogWitness:
    """Have a witness asked from now on: its verifier key, and the URL that `/add-checkpoint` comes behind.

    Raises WitnessInvalid, WitnessExists.
    """
    try:
        key = VerifierKey.read(key_text.strip())
    except LogError as error:
        raise WitnessInvalid(error.message, hint="`fanxing-witness init` prints the key of a witness.") from None
    if key.type is not SignatureType.COSIGNATURE:
        raise WitnessInvalid("this is a log's key, and no witness's")
    if len(url) > URL_CHARACTERS_MAX or not url.startswith(("http://", "https://")) or not url.isprintable():
        raise WitnessInvalid(f"a witness's URL begins with http:// or https:// and has at most {URL_CHARACTERS_MAX}")
    others = await store.witnesses_of(session)
    if len(others) >= WITNESSES_MAX:
        raise WitnessInvalid(f"a log has at most {WITNESSES_MAX} witnesses")
    if any(other.name == key.name or other.key.public == key.public for other in others):
        raise WitnessExists("a witness of that name or key is there", hint="`fanxing log witness list` shows them.")
    made = LogWitness(name=key.name, verifier_key=str(key), url=url.rstrip("/"), added_at=now)
    session.add(made)
    await session.flush()
    return made


async def remove(session: Session, name: str) -> LogWitness:
    """Ask a witness no more. Raises WitnessUnknown."""
    found = await session.get(LogWitness, name)
    if found is None:
        raise WitnessUnknown(f"there is no witness named {name}", hint="`fanxing log witness list` shows them.")
    await session.delete(found)
    await session.flush()
    return found


@dataclass(frozen=True, slots=True)
class _Asked:
    """A witness's answer: its cosignatures, the size that it knows now, or why there is neither."""

    witness: LogWitness
    signatures: tuple[NoteSignature, ...] = ()
    known_size: int | None = None
    trouble: str | None = None


@dataclass(slots=True)
class Publisher:
    """Serves what was signed, when the witnesses were asked. Those that failed are left alone for a while."""

    database: Database
    client: httpx2.AsyncClient
    clock: Clock
    _rest_until: dict[str, datetime] = field(default_factory=dict)

    async def turn(self) -> bool:
        """Publish what was signed, if it was not, or if a cosignature is still to be had; says whether it did."""
        async with self.database.reading() as session:
            head = await store.find_head(session)
            witnesses = await store.witnesses_of(session)
        if head is None or head.signed is None:
            return False
        now = self.clock()
        signed = SignedCheckpoint.read(head.signed)
        if head.published is not None and head.published_size == head.signed_size:
            signed = SignedCheckpoint.read(head.published)
        has = {(one.name, one.key_id) for one in signed.signatures}
        lacking = [one for one in witnesses if (one.name, one.key.id) not in has]
        due = [one for one in lacking if self._rest_until.get(one.name, now) <= now]
        if not due and head.published_size == head.signed_size:
            return False
        answers = await asyncio.gather(*(self._asked(one, signed) for one in due))
        for answer in answers:
            signed, told = _with(signed, answer)
            self._note_trouble(answer.witness, told, now)
            await self._kept(answer, told, signed.checkpoint.size, now)
        async with self.database.writing() as session:
            return await store.publish(session, signed.checkpoint.size, bytes(signed), now)

    def _note_trouble(self, witness: LogWitness, trouble: str | None, now: datetime) -> None:
        self._rest_until.pop(witness.name, None)
        if trouble is not None:
            self._rest_until[witness.name] = now + ASKED_AGAIN_AFTER
            _log.warning("witness did not cosign", witness=witness.name, why=trouble)

    async def _kept(self, answer: _Asked, trouble: str | None, size: int, now: datetime) -> None:
        table = table_of(LogWitness)
        values: dict[str, object] = {"trouble": trouble}
        if trouble is None:
            values |= {"cosigned_size": size, "cosigned_at": now}
        elif answer.known_size is not None:
            values["cosigned_size"] = answer.known_size
        async with self.database.writing() as session:
            changed = update(table).where(col(LogWitness.name) == answer.witness.name).values(values)
            await (await session.connection()).execute(changed)

    async def _asked(self, witness: LogWitness, signed: SignedCheckpoint) -> _Asked:
        """Ask once, and once more where the witness cosigned another size last than we know."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answer = await self._asked_from(witness, signed, witness.cosigned_size)
                if answer.known_size is not None and answer.known_size <= signed.checkpoint.size:
                    answer = await self._asked_from(witness, signed, answer.known_size)
                return answer
        except TimeoutError:
            return _Asked(witness, trouble=f"it did not answer within {ANSWER_TIMEOUT_S:.0f} s")
        except httpx2.HTTPError as error:
            return _Asked(witness, trouble=f"it could not be reached: {type(error).__name__}")
        except (LogError, httpx2.InvalidURL) as error:
            return _Asked(witness, trouble=str(error)[:_TROUBLE_CHARACTERS_MAX])

    async def _asked_from(self, witness: LogWitness, signed: SignedCheckpoint, old_size: int) -> _Asked:
        size = signed.checkpoint.size
        if old_size > size:
            # It may have cosigned for another server of ours a moment ago; if not, somebody forked the log.
            return _Asked(witness, trouble=f"it knows a checkpoint of {old_size:,} leaves, and ours has {size:,}")
        async with self.database.reading() as session:
            reader = await store.reader_for(session, subtrees_of(consistency_path(old_size, size)), size)
        body = bytes(AddCheckpoint(old_size, prove_consistency(old_size, size, reader), signed))
        status, media_type, content = await self._post(f"{witness.url}/add-checkpoint", body)
        if status == HTTPStatus.OK:
            return _Asked(witness, signatures=read_signature_lines(content))
        told = content[:_TROUBLE_CHARACTERS_MAX].decode("ascii", "replace").strip()
        if status == HTTPStatus.CONFLICT and media_type == ANSWER_SIZE and _is_size(told):
            return _Asked(witness, known_size=int(told), trouble=f"it cosigned {told} leaves last, or another root")
        return _Asked(witness, trouble=f"{status}: {told}")

    async def _post(self, url: str, body: bytes) -> tuple[int, str, bytes]:
        async with self.client.stream("POST", url, content=body) as response:
            content = b""
            async for part in response.aiter_bytes():
                content += part
                if len(content) > NOTE_BYTES_MAX:
                    break
            return response.status_code, response.headers.get("content-type", "").partition(";")[0], content


def _is_size(told: str) -> bool:
    return told.isascii() and told.isdigit() and len(told) <= _SIZE_DIGITS_MAX


def _with(signed: SignedCheckpoint, answer: _Asked) -> tuple[SignedCheckpoint, str | None]:
    """The checkpoint with the cosignatures of an answer that are right, and why there are none."""
    if answer.trouble is not None:
        return signed, answer.trouble
    try:
        cosigned = signed.cosigned(answer.signatures, [answer.witness.key])
    except LogError as error:
        return signed, error.message
    return cosigned, None if cosigned != signed else "it answered without a cosignature of its own"


def names_of(witnesses: Sequence[LogWitness], signed: SignedCheckpoint) -> list[str]:
    """Those of these witnesses that cosigned a checkpoint."""
    has = {(one.name, one.key_id) for one in signed.signatures}
    return [one.name for one in witnesses if (one.name, one.key.id) in has]
