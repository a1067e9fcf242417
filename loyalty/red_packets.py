"""Red packets (裂变红包): one member's packet is opened by his friends, each of whom finds a share of it.

The shares are decided when the packet is made, by a seed that is committed to then and shown when the packet is done,
so that nobody was given what was left over by the operator's liking.
"""

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    Text,
    UniqueConstraint,
    case,
    text,
    update,
)
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert
from kit.errors import Conflict, NotFound
from kit.ids import derived_id
from kit.vault import Vault
from loyalty import allowances, budgets, ledger, members, prizes, programs
from loyalty.budgets import Budget, BudgetUsedUp
from loyalty.draws import fair
from loyalty.ledger import AccountId, InsufficientBalance, Leg, Transfer
from loyalty.prizes import Given, Prize, PrizeKind
from loyalty.programs import Program, ProgramKind
from loyalty.referrals import acting_for

FORMAT = "fanxing-packet/v1"
VALID_HOURS_MAX = 24 * 30
FRIEND_WINDOW_HOURS_MAX = 24 * 90
SHARES_MIN = 2
_KINDS = (PrizeKind.POINTS, PrizeKind.MEGABYTES, PrizeKind.CASH)


class PacketUnknown(NotFound):
    """There is no such packet, or it is of another group."""

    code = "PacketUnknown"


class PacketRefused(Conflict):
    """This member cannot open this packet; the message says why."""

    code = "PacketRefused"


class PacketEmpty(Conflict):
    """Every share is opened, or the packet's time is over."""

    code = "PacketEmpty"


class PacketIdReused(Conflict):
    """The packet's id belongs to another member's packet, or to one of another program."""

    code = "PacketIdReused"


class PacketState(StrEnum):
    """Whether shares can be opened."""

    OPEN = "open"
    FINISHED = "finished"
    EXPIRED = "expired"


class RedPacket(SQLModel, table=True):
    """A packet. It is a holder of the ledger: what is not opened yet lies in its own account."""

    __tablename__: ClassVar[str] = "red_packet"
    __table_args__ = (
        CheckConstraint("state IN ('open', 'finished', 'expired')", name="state"),
        CheckConstraint("asset IN ('points', 'mb', 'fen')", name="asset"),
        CheckConstraint("minimum > 0 AND shares > 0 AND shares * minimum <= total", name="shares"),
        CheckConstraint("opened BETWEEN 0 AND shares", name="opened"),
        Index("ix_red_packet_due", "expires_at", postgresql_where=text("state = 'open'")),
    )

    packet_id: uuid.UUID = Field(primary_key=True)
    program_id: uuid.UUID
    member_id: uuid.UUID = Field(index=True)
    asset: str = Field(sa_type=Text)
    total: int = Field(sa_column=Column(BigInteger, nullable=False))
    shares: int
    minimum: int = Field(sa_column=Column(BigInteger, nullable=False))
    opened: int = 0
    state: str = Field(sa_type=Text)
    seed_sealed: bytes = Field(sa_type=LargeBinary)
    commitment: bytes = Field(sa_type=LargeBinary)
    created_at: datetime = Field(sa_type=Moment)
    expires_at: datetime = Field(sa_type=Moment)


class PacketShare(SQLModel, table=True):
    """A share that somebody opened. `number` counts from 1, in the order of opening."""

    __tablename__: ClassVar[str] = "red_packet_share"
    __table_args__ = (UniqueConstraint("packet_id", "number"),)

    packet_id: uuid.UUID = Field(primary_key=True)
    member_id: uuid.UUID = Field(primary_key=True)
    number: int
    amount: int = Field(sa_column=Column(BigInteger, nullable=False))
    at: datetime = Field(sa_type=Moment)


@dataclass(frozen=True)
class PacketRules:
    """What a packet holds and who may open it.

    `total` units of `asset` in `shares` of at least `minimum`; `friend_window_hours`: openers must have joined the
    group within it, None: anybody of the group. Limits: packets a member makes, shares a device opens.
    """

    kind: ClassVar[ProgramKind] = ProgramKind.PACKET

    asset: PrizeKind
    total: int
    shares: int
    minimum: int
    valid_hours: int
    friend_window_hours: int | None = None
    member_day: int | None = None
    member_all: int | None = None
    device_day: int | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "PacketRules":
        """Raises what a document of another form makes Python raise."""
        return cls(**{**document, "asset": PrizeKind(document["asset"])})

    def document(self) -> dict[str, Any]:
        return {**vars(self), "asset": self.asset.value}

    def check(self) -> None:
        window = self.friend_window_hours
        highest = prizes.AMOUNT_MAX[self.asset]
        programs.require(
            [
                ("asset: points, mb or fen", self.asset not in _KINDS),
                (f"shares: {SHARES_MIN} to {fair.SHARES_MAX}", not SHARES_MIN <= self.shares <= fair.SHARES_MAX),
                ("minimum: 1 or more", self.minimum < 1),
                (f"total: shares × minimum to {highest}", not self.shares * self.minimum <= self.total <= highest),
                (f"valid_hours: 1 to {VALID_HOURS_MAX}", not 1 <= self.valid_hours <= VALID_HOURS_MAX),
                (
                    f"friend_window_hours: 1 to {FRIEND_WINDOW_HOURS_MAX}, or none",
                    window is not None and not 1 <= window <= FRIEND_WINDOW_HOURS_MAX,
                ),
                programs.limit_fault("member_day", self.member_day),
                programs.limit_fault("member_all", self.member_all),
                programs.limit_fault("device_day", self.device_day),
            ]
        )

    def costs(self) -> Mapping[str, int]:
        return {self.asset.value: self.total}

    def largest(self) -> int:
        return 1

    @property
    def event(self) -> str:
        return ""


@dataclass(frozen=True)
class Opened:
    """A share that a member opened. `given` is None on a repetition."""

    packet: RedPacket
    number: int
    amount: int
    given: Given | None


@dataclass(frozen=True)
class Expired:
    """What a sweep gave back, in units of each packet's asset."""

    packets: int
    units: int


def rules_of(program: Program) -> PacketRules:
    return PacketRules.read(program.rules)


def document(packet_id: uuid.UUID, rules: PacketRules, seed_hash: bytes) -> dict[str, Any]:
    """What a packet's commitment is taken of."""
    return {
        "format": FORMAT,
        "packet_id": str(packet_id),
        "asset": rules.asset.value,
        "total": rules.total,
        "shares": rules.shares,
        "minimum": rules.minimum,
        "seed_hash": seed_hash.hex(),
    }


async def make(
    session: Session,
    vault: Vault,
    *,
    packet_id: uuid.UUID,
    member_id: uuid.UUID,
    program_id: uuid.UUID,
    now: datetime,
    seed: bytes | None = None,
) -> RedPacket:
    """Make a member's packet and set its whole amount aside; the same id again changes nothing.

    `seed`: for tests; otherwise fresh from the system. Raises ProgramUnknown, ProgramNotOpen, CardNeeded,
    AllowanceUsedUp, BudgetUsedUp and PacketIdReused; the caller's transaction must then be rolled back.
    """
    program = await programs.open_for(session, program_id, member_id, ProgramKind.PACKET, now)
    rules, secret = rules_of(program), seed or secrets.token_bytes(fair.SEED_BYTES)
    row = {
        "packet_id": packet_id,
        "program_id": program_id,
        "member_id": member_id,
        "asset": rules.asset.value,
        "total": rules.total,
        "shares": rules.shares,
        "minimum": rules.minimum,
        "opened": 0,
        "state": PacketState.OPEN.value,
        "seed_sealed": vault.seal(secret, _seal_context(packet_id)),
        "commitment": fair.commitment(document(packet_id, rules, fair.seed_hash(secret, packet_id))),
        "created_at": now,
        "expires_at": now + timedelta(hours=rules.valid_hours),
    }
    made = await session.exec(
        insert(session, RedPacket).values(row).on_conflict_do_nothing().returning(col(RedPacket.packet_id))
    )
    is_new = made.first() is not None
    packet = await session.get_one(RedPacket, packet_id)
    if not is_new:
        if (packet.member_id, packet.program_id) != (member_id, program_id):
            raise PacketIdReused("this id belongs to another packet")
        return packet
    today = allowances.day_of(now).isoformat()
    if rules.member_all is not None:
        await allowances.take(session, member_id, program_id, allowances.IN_ALL, rules.member_all)
    if rules.member_day is not None:
        await allowances.take(session, member_id, program_id, today, rules.member_day)
    await _escrow(session, program, packet, now)
    return packet


async def _escrow(session: Session, program: Program, packet: RedPacket, now: datetime) -> None:
    budget = programs.budget_of(program, packet.asset)
    if budget is None:
        source = Leg(ledger.issuance(program.brand_id, packet.asset, packet.packet_id), -packet.total)
    else:
        source = budgets.debit(budget, packet.total, packet.packet_id.int)
    legs = (source, Leg(_budget(packet).accounts[0], packet.total))
    transfer = Transfer(derived_id("packet", packet.packet_id), "red packet", legs)
    try:
        await ledger.post(session, transfer, now)
    except InsufficientBalance:
        raise BudgetUsedUp("there are no red packets left") from None


def _budget(packet: RedPacket) -> Budget:
    return Budget(derived_id("packet-budget", packet.packet_id), packet.asset, 1)


async def open_share(
    session: Session,
    vault: Vault,
    *,
    packet_id: uuid.UUID,
    member_id: uuid.UUID,
    device: str | None,
    now: datetime,
) -> Opened:
    """Open one share of somebody else's packet; a second time changes nothing and answers as before.

    Raises PacketUnknown, PacketRefused, PacketEmpty, ProgramNotOpen, CardNeeded, AllowanceUsedUp and what
    `prizes.give` raises; the caller's transaction must then be rolled back.
    """
    packet = await get(session, packet_id)
    earlier = await session.get(PacketShare, (packet_id, member_id))
    if earlier is not None:
        return Opened(packet, earlier.number, earlier.amount, None)
    program = await _program(session, packet, member_id)
    rules = rules_of(program)
    await _check_opener(session, rules, packet, member_id, now)
    number = await _take_share(session, packet_id, now)
    amount = shares_of(vault, packet)[number - 1]
    row = {"packet_id": packet_id, "member_id": member_id, "number": number, "amount": amount, "at": now}
    taken = await session.exec(
        insert(session, PacketShare).values(row).on_conflict_do_nothing().returning(col(PacketShare.number))
    )
    if taken.first() is None:  # the same member at the same time; the share goes back with this transaction
        raise PacketRefused("you have opened this packet already")
    await allowances.take_for_device(session, device, packet.program_id, rules.device_day, now)
    given = await prizes.give(
        session,
        vault,
        grant_id=derived_id("packet-share", packet_id, member_id),
        member_id=member_id,
        group_id=program.group_id,
        brand_id=program.brand_id,
        prize=Prize(PrizeKind(packet.asset), amount),
        budget=_budget(packet),
        reason="red packet",
        now=now,
        # Not into the packet: no share is made of it again, and the packet's end may have passed.
        refund_to=_returns_to(program, packet),
    )
    await session.refresh(packet)
    return Opened(packet, number, amount, given)


async def _program(session: Session, packet: RedPacket, member_id: uuid.UUID) -> Program:
    try:
        # As of the packet's making: one that is out may be opened to its own end, also after the program's.
        return await programs.open_for(session, packet.program_id, member_id, ProgramKind.PACKET, packet.created_at)
    except programs.ProgramUnknown:
        raise PacketUnknown("no such packet for this member") from None


async def _check_opener(
    session: Session, rules: PacketRules, packet: RedPacket, member_id: uuid.UUID, now: datetime
) -> None:
    own = await members.family_of(session, await acting_for(session, packet.member_id))
    if await acting_for(session, member_id) in own or member_id in own:
        raise PacketRefused("this is your own packet", hint="Send it to your friends.")
    window = rules.friend_window_hours
    if window is not None:
        joined = (await members.get(session, member_id)).created_at
        if now - joined > timedelta(hours=window):
            raise PacketRefused("this packet is for those who are new")


async def _take_share(session: Session, packet_id: uuid.UUID, now: datetime) -> int:
    taken = await session.exec(
        update(RedPacket)
        .where(
            col(RedPacket.packet_id) == packet_id,
            col(RedPacket.state) == PacketState.OPEN,
            col(RedPacket.opened) < col(RedPacket.shares),
            col(RedPacket.expires_at) > now,
        )
        .values(
            opened=col(RedPacket.opened) + 1,
            state=_state_after(),
        )
        .returning(col(RedPacket.opened))
        .execution_options(synchronize_session=False)
    )
    number: int | None = taken.scalar_one_or_none()
    if number is None:
        raise PacketEmpty("this packet is empty, or its time is over")
    return number


def _state_after() -> Any:
    return case(
        (col(RedPacket.opened) + 1 == col(RedPacket.shares), PacketState.FINISHED.value), else_=PacketState.OPEN.value
    )


def shares_of(vault: Vault, packet: RedPacket) -> list[int]:
    """What each share holds, in the order of opening."""
    return fair.split(seed_of(vault, packet), packet.packet_id, packet.total, packet.shares, packet.minimum)


def seed_of(vault: Vault, packet: RedPacket) -> bytes:
    """The packet's seed: to be shown once no share can be opened any more, and never before."""
    return vault.unseal(packet.seed_sealed, _seal_context(packet.packet_id))


def _seal_context(packet_id: uuid.UUID) -> bytes:
    return b"packet-seed" + packet_id.bytes


def state_at(packet: RedPacket, now: datetime) -> PacketState:
    """What the packet is now, whether or not the sweep has come by."""
    state = PacketState(packet.state)
    return PacketState.EXPIRED if state is PacketState.OPEN and packet.expires_at <= now else state


async def get(session: Session, packet_id: uuid.UUID) -> RedPacket:
    """Raises PacketUnknown."""
    packet = await session.get(RedPacket, packet_id)
    if packet is None:
        raise PacketUnknown("no such packet")
    return packet


async def opened_of(session: Session, packet_id: uuid.UUID) -> list[PacketShare]:
    """The shares that were opened, in order."""
    found = await session.exec(
        select(PacketShare).where(PacketShare.packet_id == packet_id).order_by(col(PacketShare.number))
    )
    return list(found)


async def expire_due(session: Session, now: datetime, count_max: int) -> Expired:
    """End packets whose time is over and give what nobody opened back to their program's budget."""
    due = await session.exec(
        select(RedPacket)
        .where(RedPacket.state == PacketState.OPEN, col(RedPacket.expires_at) <= now)
        .order_by(col(RedPacket.expires_at))
        .limit(count_max)
        .with_for_update(skip_locked=True)
    )
    packets = list(due)
    units = 0
    for packet in packets:
        packet.state = PacketState.EXPIRED
        units += await _give_back(session, packet, now)
    await session.flush()
    return Expired(len(packets), units)


async def _give_back(session: Session, packet: RedPacket, now: datetime) -> int:
    own = _budget(packet).accounts[0]
    left = (await ledger.balances_of(session, [own])).get(own, 0)
    if left:
        back = _returns_to(await programs.get(session, packet.program_id), packet)
        transfer = Transfer(
            derived_id("packet-left", packet.packet_id), "red packet left", (Leg(own, -left), Leg(back, left))
        )
        await ledger.post(session, transfer, now)
    return left


def _returns_to(program: Program, packet: RedPacket) -> AccountId:
    budget = programs.budget_of(program, packet.asset)
    if budget is None:
        return ledger.issuance(program.brand_id, packet.asset, packet.packet_id)
    # Always to the first stripe, where what is left of several packets makes a whole one again.
    return budget.accounts[0]
