"""Signing in: a one-time code proves that a phone number is the shopper's, a token remembers it.

A code is good for what it was sent for, and for nothing else: who reads out a code "for signing in" has not agreed to
be erased.

A wrong code must cost a try even though the request that brought it fails. So `check_code` does not raise: it returns
what it found, the caller commits, and only then asks the result to raise:

    async with database.writing() as session:
        check = await sign_in.check_code(session, vault, group_id, phone, code, purpose, now=now)
    check.raise_if_refused()

Nothing here tells whether a number is a member's: known and unknown numbers get the same answers.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import unicodedata
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import JSON, CheckConstraint, Column, LargeBinary, delete, update
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert
from kit.errors import FanxingError, Invalid, TooMany
from kit.ids import new_id
from kit.procedures import Kind, Step
from kit.vault import Vault
from loyalty import code_limits
from loyalty.code_limits import Asker
from loyalty.members import Member
from loyalty.phones import parse_phone, phone_fingerprint

CODE_DIGITS = 6
CODE_LIFETIME = timedelta(minutes=5)
CODE_TRIES_MAX = 5
CODE_PAUSE = timedelta(seconds=60)
"""Time between two codes to one number."""
CODES_PER_WINDOW_MAX = 5
CODE_WINDOW = timedelta(hours=1)
SESSION_LIFETIME = timedelta(days=30)
FRESH_MAX = timedelta(minutes=10)
"""How long after a sign-in its session may do what cannot be undone."""
_TOKEN_SECRET_BYTES = 32
_UUID_BYTES = 16


class OneTimeCodeWrong(Invalid):
    """The code is not the one that was sent. `tries_left` says how often it may still be tried."""

    code = "OneTimeCodeWrong"

    def __init__(self, tries_left: int) -> None:
        super().__init__(f"wrong code; tries left: {tries_left}", hint="Look at the message again.")
        self.tries_left = tries_left


class OneTimeCodeExpired(Invalid):
    """There is no code to compare with: it is too old, was used, or was never asked for."""

    code = "OneTimeCodeExpired"


class OneTimeCodeTriesExhausted(TooMany):
    """Too many wrong tries: the code is dead."""

    code = "OneTimeCodeTriesExhausted"


class OneTimeCodeTooSoon(TooMany):
    """The number got a code too recently, or too many of late. `retry_after_s` says when the next is possible."""

    code = "OneTimeCodeTooSoon"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the next code can be sent in {retry_after_s} s", hint="Use the code that was sent, or wait.")
        self.retry_after_s = retry_after_s


class OneTimeCodeTriesLimited(TooMany):
    """Too many codes were typed from one network. `retry_after_s` says when the next is looked at."""

    code = "OneTimeCodeTriesLimited"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many codes were typed from here; the next is looked at in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class CodePurpose(StrEnum):
    """What a one-time code is sent for, and alone good for."""

    SIGN_IN = "sign_in"
    MERGE = "merge"
    UNMERGE = "unmerge"
    ERASE = "erase"


class OneTimeCode(SQLModel, table=True):
    """The latest code of a phone number, by keyed hashes alone. No hash means that the code was used.

    The code's hash covers its purpose: for another one it is a wrong code, and costs a try.
    """

    __tablename__: ClassVar[str] = "one_time_code"
    __table_args__ = (CheckConstraint(f"tries BETWEEN 0 AND {CODE_TRIES_MAX}", name="tries"),)

    phone_fingerprint: bytes = Field(primary_key=True, sa_type=LargeBinary)
    code_hash: bytes | None = Field(sa_type=LargeBinary)
    tries: int
    expires_at: datetime = Field(sa_type=Moment)
    sent_at: list[str] = Field(sa_column=Column(JSON, nullable=False))


class MemberSession(SQLModel, table=True):
    """A device on which a member is signed in."""

    __tablename__: ClassVar[str] = "member_session"

    member_id: uuid.UUID = Field(primary_key=True)
    token_hash: bytes = Field(primary_key=True, sa_type=LargeBinary)
    expires_at: datetime = Field(sa_type=Moment)


@dataclass(frozen=True)
class IssuedCode:
    """A code to be sent to a phone number, once the transaction that made it has committed."""

    phone_e164: str
    code: str
    expires_at: datetime
    message_id: uuid.UUID
    """Under which the message is sent once."""
    purpose: CodePurpose


class Outcome(StrEnum):
    """What became of a code that somebody typed."""

    ACCEPTED = "accepted"
    WRONG = "wrong"
    EXPIRED = "expired"
    TRIES_EXHAUSTED = "tries_exhausted"


@dataclass(frozen=True)
class CodeCheck:
    """The outcome of one try, and how many are left to this code."""

    outcome: Outcome
    tries_left: int

    def raise_if_refused(self) -> None:
        """Raise the refusal, if it is one. Only after the transaction that counted the try has committed."""
        if self.outcome is not Outcome.ACCEPTED:
            raise self._refusal()

    def _refusal(self) -> FanxingError:
        if self.outcome is Outcome.WRONG:
            return OneTimeCodeWrong(self.tries_left)
        if self.outcome is Outcome.TRIES_EXHAUSTED:
            return OneTimeCodeTriesExhausted("too many wrong tries", hint="Ask for a new code.")
        return OneTimeCodeExpired("this code is no longer valid", hint="Ask for a new code.")


async def issue_code(
    session: Session,
    vault: Vault,
    group_id: int,
    phone: str,
    purpose: CodePurpose,
    now: datetime,
    asker: Asker | None = None,
    *,
    is_sent: bool = True,
) -> IssuedCode:
    """Make a new code for a number; the one before it is void, whatever it was for.

    Send it after the commit: a code that is sent but not stored helps nobody, one stored but not sent only costs the
    pause until the next. Raises PhoneInvalid, and OneTimeCodeTooSoon: one in 60 s, five in an hour, and the limits of
    `loyalty.code_limits`; it does not tell which. `asker`: from where it is asked for, None where that is not limited.
    `is_sent` False: it is shown to who asks, as in a sandbox, and counts for nobody's phone.
    """
    phone_e164 = parse_phone(phone)
    fingerprint = phone_fingerprint(vault, group_id, phone_e164)
    # An update that changes nothing: it locks the row of a number that had codes before, and gives back their times.
    locked = await session.exec(
        insert(session, OneTimeCode)
        .values(phone_fingerprint=fingerprint, code_hash=None, tries=0, expires_at=now, sent_at=[])
        .on_conflict_do_update(index_elements=["phone_fingerprint"], set_={"tries": col(OneTimeCode.tries)})
        .returning(col(OneTimeCode.sent_at))
    )
    sent = [datetime.fromisoformat(moment) for moment in locked.scalar_one()]
    wait = _wait(sent, now) or await code_limits.take(session, vault, phone_e164 if is_sent else None, asker, now)
    if wait:
        raise OneTimeCodeTooSoon(-(-wait // timedelta(seconds=1)))
    code = f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"
    expires_at = now + CODE_LIFETIME
    kept = [*sent, now][-CODES_PER_WINDOW_MAX:]
    await session.exec(
        update(OneTimeCode)
        .where(col(OneTimeCode.phone_fingerprint) == fingerprint)
        .values(
            code_hash=_code_hash(vault, fingerprint, purpose, code),
            tries=0,
            expires_at=expires_at,
            sent_at=[moment.isoformat() for moment in kept],
        )
    )
    return IssuedCode(phone_e164, code, expires_at, new_id(), purpose)


def _wait(sent: Sequence[datetime], now: datetime) -> timedelta:
    waits = [timedelta(0)]
    if sent:
        waits.append(sent[-1] + CODE_PAUSE - now)
    if len(sent) >= CODES_PER_WINDOW_MAX:
        waits.append(sent[-CODES_PER_WINDOW_MAX] + CODE_WINDOW - now)
    return max(waits)


async def count_try(session: Session, vault: Vault, asker: Asker, now: datetime) -> None:
    """Count a code that somebody typed, before it is looked at. Raises OneTimeCodeTriesLimited."""
    wait = await code_limits.take_try(session, vault, asker, now)
    if wait is not None:
        raise OneTimeCodeTriesLimited(-(-wait // timedelta(seconds=1)))


async def check_code(
    session: Session, vault: Vault, group_id: int, phone: str, code: str, purpose: CodePurpose, *, now: datetime
) -> CodeCheck:
    """Compare what somebody typed with the code sent to the number for this; a match works once, every try counts.

    Commit before acting on a refusal, as the module's head shows. Raises PhoneInvalid.
    """
    fingerprint = phone_fingerprint(vault, group_id, parse_phone(phone))
    # Counting and testing the limit in one statement: parallel guesses queue for the row and cannot exceed it.
    counted = await session.exec(
        update(OneTimeCode)
        .where(
            col(OneTimeCode.phone_fingerprint) == fingerprint,
            col(OneTimeCode.code_hash).is_not(None),
            col(OneTimeCode.expires_at) > now,
            col(OneTimeCode.tries) < CODE_TRIES_MAX,
        )
        .values(tries=col(OneTimeCode.tries) + 1)
        .returning(col(OneTimeCode.code_hash), col(OneTimeCode.tries))
        .execution_options(synchronize_session=False)
    )
    row = counted.first()
    if row is None:
        return await _dead_code(session, fingerprint, now)
    code_hash, tries = row
    if not hmac.compare_digest(code_hash, _code_hash(vault, fingerprint, purpose, _typed(code))):
        left = CODE_TRIES_MAX - tries
        return CodeCheck(Outcome.WRONG, left) if left else CodeCheck(Outcome.TRIES_EXHAUSTED, 0)
    await session.exec(
        update(OneTimeCode).where(col(OneTimeCode.phone_fingerprint) == fingerprint).values(code_hash=None)
    )
    return CodeCheck(Outcome.ACCEPTED, 0)


async def _dead_code(session: Session, fingerprint: bytes, now: datetime) -> CodeCheck:
    exhausted = await session.exec(
        select(OneTimeCode.tries).where(
            OneTimeCode.phone_fingerprint == fingerprint,
            col(OneTimeCode.code_hash).is_not(None),
            OneTimeCode.expires_at > now,
        )
    )
    return CodeCheck(Outcome.EXPIRED if exhausted.first() is None else Outcome.TRIES_EXHAUSTED, 0)


def _typed(code: str) -> str:
    # Chinese keyboards type full-width digits, and people copy blanks along.
    return "".join(unicodedata.normalize("NFKC", code).split())


def _code_hash(vault: Vault, fingerprint: bytes, purpose: CodePurpose, code: str) -> bytes:
    return vault.fingerprint("one-time-code", f"{fingerprint.hex()}\x00{purpose}\x00{code}")


async def open_session(session: Session, member_id: uuid.UUID, now: datetime) -> str:
    """Sign the member in for 30 days; the token is his proof, and only its SHA-256 is stored."""
    # The member's id stands in the token so that the look-up goes to the member's own shard.
    token = member_id.bytes + secrets.token_bytes(_TOKEN_SECRET_BYTES)
    session.add(
        MemberSession(member_id=member_id, token_hash=hashlib.sha256(token).digest(), expires_at=now + SESSION_LIFETIME)
    )
    await session.flush()
    return base64.urlsafe_b64encode(token).decode()


async def member_of(session: Session, token: str, now: datetime) -> uuid.UUID | None:
    """The member whom a token stands for; None when it is not ours, too old or closed, or he was erased or merged."""
    return await _member_of(session, token, now)


async def member_freshly_of(session: Session, token: str, now: datetime) -> uuid.UUID | None:
    """The same, unless he signed in more than FRESH_MAX ago."""
    return await _member_of(session, token, now + SESSION_LIFETIME - FRESH_MAX)


async def _member_of(session: Session, token: str, expires_after: datetime) -> uuid.UUID | None:
    key = session_key(token)
    if key is None:
        return None
    found = await session.exec(
        select(MemberSession.member_id)
        .join(Member, col(Member.member_id) == MemberSession.member_id)
        .where(
            MemberSession.member_id == key[0],
            MemberSession.token_hash == key[1],
            MemberSession.expires_at > expires_after,
            col(Member.phone_sealed).is_not(None),
            col(Member.merged_into).is_(None),
        )
    )
    return found.first()


SIGNED_IN_PARAMETERS: Mapping[str, Kind] = {"member": Kind.UUID, "token": Kind.BYTES, "now": Kind.MOMENT}
SIGNED_IN: Sequence[Step] = (
    Step(
        """
        SELECT 1 FROM member_session AS opened JOIN member AS whose ON whose.member_id = opened.member_id
        WHERE opened.member_id = :member AND opened.token_hash = :token AND opened.expires_at > :now
            AND whose.phone_sealed IS NOT NULL AND whose.merged_into IS NULL [[FOR SHARE OF whose]]
        """,
        refusal="SignInNeeded",
    ),
)
"""Steps that go on only for a member who is signed in, and keep him from being merged or erased meanwhile."""


VISITING_PARAMETERS: Mapping[str, Kind] = {**SIGNED_IN_PARAMETERS, "visits": Kind.BOOLEAN}
VISITING: Sequence[Step] = (
    Step(
        """
        SELECT opened.member_id FROM member_session AS opened JOIN member AS whose ON whose.member_id = opened.member_id
        WHERE opened.member_id = :member AND opened.token_hash = :token AND opened.expires_at > :now
            AND whose.phone_sealed IS NOT NULL AND whose.merged_into IS NULL
        """,
        gives={"visitor": Kind.UUID},
        when="visits",
    ),
)
"""Steps that tell who visits, as `member_of`; None for somebody who is not signed in."""


def visiting_values(token: str | None) -> dict[str, Any]:
    """The parameters of `VISITING`, but for the time. `token` is what the visitor shows, if anything."""
    member_id, token_hash = (session_key(token) if token else None) or (None, None)
    return {"member": member_id, "token": token_hash, "visits": member_id is not None}


async def close_session(session: Session, token: str) -> None:
    """Sign out; a token that is not open is no error."""
    key = session_key(token)
    if key is not None:
        await session.exec(
            delete(MemberSession).where(col(MemberSession.member_id) == key[0], col(MemberSession.token_hash) == key[1])
        )


def session_key(token: str) -> tuple[uuid.UUID, bytes] | None:
    """The member's id and the token's hash, under which a session is kept; None when it is no token of ours."""
    try:
        decoded = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    if len(decoded) != _UUID_BYTES + _TOKEN_SECRET_BYTES:
        return None
    return uuid.UUID(bytes=decoded[:_UUID_BYTES]), hashlib.sha256(decoded).digest()


async def close_sessions(session: Session, members: Collection[uuid.UUID]) -> int:
    """Sign these members out everywhere; how many sessions that ended."""
    closed = await session.exec(delete(MemberSession).where(col(MemberSession.member_id).in_(members)))
    return int(closed.rowcount)


async def forget_codes(session: Session, fingerprints: Collection[bytes]) -> None:
    """Void the codes of these numbers and forget when they were sent."""
    await session.exec(delete(OneTimeCode).where(col(OneTimeCode.phone_fingerprint).in_(fingerprints)))


async def sweep(session: Session, now: datetime) -> None:
    """Delete what no longer matters: sessions that ended, codes whose number may have a new one anyway, windows."""
    await session.exec(delete(MemberSession).where(col(MemberSession.expires_at) <= now))
    await session.exec(delete(OneTimeCode).where(col(OneTimeCode.expires_at) <= now - CODE_WINDOW))
    await code_limits.sweep(session, now)
