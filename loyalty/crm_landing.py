"""Landing a chunk of a CRM's rows: into members, cards, points and standing, all at once.

Everything is a few statements for thousands of rows, in the caller's transaction. Numbers that are all new are copied
straight into the tables. Others go through a temporary table; what such a row may bring is decided by one statement,
the one that raises `CrmRecord`, and whatever follows moves what that one let through.
"""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

from psycopg import errors
from sqlalchemy import (
    BigInteger,
    CursorResult,
    Executable,
    Subquery,
    and_,
    case,
    delete,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    update,
)
from sqlmodel import SQLModel

from kit.db import Moment, Session, driver_connection, insert, table_of
from kit.ids import new_id
from kit.vault import Vault
from loyalty import crm_staging, ledger, members, profiles, tier_imports
from loyalty.consents import Channel, Consent
from loyalty.crm_file import Row
from loyalty.crm_making import Making, Prepared
from loyalty.crm_records import REASON, Counts, CrmRecord, Mode, Order
from loyalty.crm_sealing import IDENTITIES, Additions
from loyalty.crm_staging import STAGED, STAGED_CONSENTS
from loyalty.ledger import AccountId, Leg, Purpose, Transfer
from loyalty.ledger.bulk import OPENED_AT_ONCE_MAX, post_many, post_openings
from loyalty.members import Card, MemberKey, MemberProfile, PhoneIdentity
from loyalty.profiles import parse_birthday

MADE_AGE_MAX = timedelta(minutes=1)
"""Rows that were dated longer ago are made anew."""
Said = Callable[[], Awaitable[Mapping[bytes, Row]]]
_BALANCES = ("points", "experience", "tier_rank")


async def land(
    session: Session, vault: Vault, order: Order, number: int, prepared: Prepared, making: Making, now: datetime
) -> Counts:
    """Bring a chunk in, in the caller's transaction. `making` is asked for more of it, if that should be needed."""
    if not prepared.numbers:
        return Counts()
    await crm_staging.prepare(session)
    counts = None
    if prepared.additions is not None and await _is_fresh(session, order, prepared.additions, now):
        counts = await _add_all(session, order, prepared.numbers, prepared.additions)
    if counts is None:
        counts = await _bring(session, vault, order, number, prepared, making, now)
    making.all_new = counts.new_members == prepared.numbers
    return counts


async def _is_fresh(session: Session, order: Order, additions: Additions, now: datetime) -> bool:
    # What was made is dated; it does not go back into a past that others may have reported already.
    policy, openings = await ledger.policy_of(session, order.group_id), additions.openings
    return (
        timedelta() <= now - additions.at <= MADE_AGE_MAX
        and ledger.lot_expiry(policy, openings.at) == openings.lots_expire_at
    )


async def _add_all(session: Session, order: Order, numbers: int, additions: Additions) -> Counts | None:
    """Copy a chunk of new numbers into the tables themselves; None, and nothing done, when one is known after all.

    The first import of a CRM is nothing but this, at a quarter of the cost of the other way.
    """
    try:
        # In the order of the keyed hashes, and before any other lock, as by the other way.
        async with (await driver_connection(session)).transaction():
            await crm_staging.copy(session, [(IDENTITIES, additions.identities)])
    except errors.UniqueViolation:
        return None
    await crm_staging.copy(session, additions.copies)
    experience = additions.experience
    if additions.tiers is not None:
        await crm_staging.stage(session, additions.tiers)
        experience += await _bring_standing(session, order, _opened(), additions.at)
    points = await post_openings(session, additions.openings)
    return Counts(new_members=numbers, changed=numbers, points=points, experience=experience)


async def _bring(
    session: Session, vault: Vault, order: Order, number: int, prepared: Prepared, making: Making, now: datetime
) -> Counts:
    staging = prepared.staging or await making.staging(number)
    await crm_staging.stage(session, staging)
    left = prepared.numbers - await _set_aside(session, order)
    new_members = await _bind(session, order, left) if left else 0
    points = experience = changed = 0
    if new_members:
        await _add_members(session, number, making, now)
    if left:
        await _give_cards(session, order, now)
        await _fill_profiles(session, vault, order, partial(making.said, number))
        await _join_earlier(session, order)
        changed = await _raise_records(session, order, number, now)
    if staging.consents:
        await _consent(session, now)
    if changed:
        brought = _brought(order, number)
        experience = await _bring_standing(session, order, brought, now)
        points = await _bring_points(session, order, number, brought, now)
    return Counts(
        new_members=new_members,
        known_members=prepared.numbers - new_members,
        changed=changed,
        held_back=0 if changed == left else await _held_back(session, order),
        points=points,
        experience=experience,
    )


async def _set_aside(session: Session, order: Order) -> int:
    """Forget the numbers whose rows say nothing that is not known; how many. A file that comes again is all such."""
    identity, stands, card = table_of(PhoneIdentity), table_of(CrmRecord), table_of(Card)
    profile = table_of(MemberProfile)
    of_brand = and_(card.c.member_id == identity.c.member_id, card.c.brand_id == order.brand_id)
    noted = and_(stands.c.member_id == identity.c.origin_id, stands.c.brand_id == order.brand_id)
    known = (
        select(literal(1))
        .select_from(
            identity.join(stands, noted)
            .join(card, of_brand)
            .outerjoin(profile, profile.c.member_id == identity.c.member_id)
        )
        .where(
            identity.c.fingerprint == STAGED.c.fingerprint,
            *(STAGED.c[name] <= stands.c[name] for name in _BALANCES),
            or_(STAGED.c.joined_at.is_(None), STAGED.c.joined_at >= card.c.joined_at),
            or_(not_(STAGED.c.has_name), profile.c.name_sealed.is_not(None)),
            or_(not_(STAGED.c.has_birthday), profile.c.birthday_key.is_not(None)),
        )
    )
    # A look at an index for each number takes as long whatever the tables hold; the planner would rather read them.
    async with crm_staging.looking_up(session):
        gone = await _run(session, delete(STAGED).where(not_(STAGED.c.has_consents), exists(known)))
    return gone.rowcount


async def _bind(session: Session, order: Order, numbers: int) -> int:
    """Find whose the staged numbers are, and give those that are nobody's to new members; how many."""
    made = await _run(
        session,
        insert(session, PhoneIdentity)
        .from_select(
            ["fingerprint", "group_id", "member_id", "origin_id"],
            select(STAGED.c.fingerprint, literal(order.group_id), STAGED.c.member_id, STAGED.c.member_id)
            .where(true())
            .order_by(STAGED.c.fingerprint),
        )
        .on_conflict_do_nothing(),
    )
    if made.rowcount < numbers:
        identity = table_of(PhoneIdentity)
        await _run(
            session,
            update(STAGED)
            .where(identity.c.fingerprint == STAGED.c.fingerprint, identity.c.member_id != STAGED.c.member_id)
            .values(member_id=identity.c.member_id, origin_id=identity.c.origin_id, is_new=False),
        )
    return made.rowcount


async def _add_members(session: Session, number: int, making: Making, now: datetime) -> None:
    """The new members, with what is known of them."""
    found = await _run(session, select(STAGED.c.fingerprint).where(STAGED.c.is_new))
    enrolled = await making.enrolled(number, list(found.scalars()), now)
    if enrolled.copies:
        await crm_staging.copy(session, enrolled.copies)
    connection = await session.connection()
    for name, rows in enrolled.rows:
        if rows:
            await connection.execute(SQLModel.metadata.tables[name].insert(), rows)


async def _fill_profiles(session: Session, vault: Vault, order: Order, said: Said) -> None:
    """Names and birthdays that known members lack: they are sealed anew, each under his own key."""
    profile, key = table_of(MemberProfile), table_of(MemberKey)
    lacking = await _run(
        session,
        select(STAGED.c.fingerprint, key.c.member_id, key.c.key_sealed)
        .join(key, key.c.member_id == STAGED.c.member_id)
        .outerjoin(profile, profile.c.member_id == STAGED.c.member_id)
        .where(
            not_(STAGED.c.is_new),
            or_(
                and_(STAGED.c.has_name, profile.c.name_sealed.is_(None)),
                and_(STAGED.c.has_birthday, profile.c.birthday_key.is_(None)),
            ),
        ),
    )
    found = lacking.all()
    rows = await said() if found else {}
    for fingerprint, member_id, key_sealed in found:
        row = rows[fingerprint]
        known = members.open_key(vault, member_id, key_sealed)
        if row.name is not None:
            await profiles.fill_name(session, known, member_id, row.name)
        if row.birthday is not None:
            birthday = parse_birthday(row.birthday)
            await profiles.fill_birthday(session, vault, known, order.group_id, member_id, birthday)


async def _give_cards(session: Session, order: Order, now: datetime) -> None:
    """A card of the brand for everybody who has none."""
    await _run(
        session,
        insert(session, Card)
        .from_select(
            ["member_id", "brand_id", "card_number", "joined_at", "tier_check_at"],
            select(
                STAGED.c.member_id,
                literal(order.brand_id),
                STAGED.c.card_number,
                func.coalesce(STAGED.c.joined_at, literal(now, Moment())),
                # Made due at once: to mark cards afterwards costs more than to make them.
                case((or_(STAGED.c.experience > 0, STAGED.c.tier_rank > 0), literal(now, Moment()))),
            ).where(true()),
        )
        .on_conflict_do_nothing(),
    )


async def _join_earlier(session: Session, order: Order) -> None:
    """A card that was there keeps its number, and gets the earlier day of joining."""
    card = table_of(Card)
    earlier = (
        select(STAGED.c.member_id, func.min(STAGED.c.joined_at).label("joined_at"))
        .where(not_(STAGED.c.is_new), STAGED.c.joined_at.is_not(None))
        .group_by(STAGED.c.member_id)
        .subquery()
    )
    await _run(
        session,
        update(card)
        .where(
            card.c.member_id == earlier.c.member_id,
            card.c.brand_id == order.brand_id,
            card.c.joined_at > earlier.c.joined_at,
        )
        .values(joined_at=earlier.c.joined_at),
    )


async def _consent(session: Session, now: datetime) -> None:
    """Consents of members who have said nothing here on that kind."""
    await _run(
        session,
        insert(session, Consent)
        .from_select(
            ["member_id", "consent_id", "kind", "number", "version", "is_given", "at", "channel"],
            select(
                STAGED.c.member_id,
                STAGED_CONSENTS.c.consent_id,
                STAGED_CONSENTS.c.kind,
                literal(1),
                STAGED_CONSENTS.c.version,
                true(),
                literal(now, Moment()),
                literal(str(Channel.CRM)),
            )
            .join(STAGED, STAGED.c.fingerprint == STAGED_CONSENTS.c.fingerprint)
            .where(true()),
        )
        .on_conflict_do_nothing(),
    )


async def _raise_records(session: Session, order: Order, number: int, now: datetime) -> int:
    """Decide what rows bring, and note it; how many bring something or are the first word on their number."""
    stands = table_of(CrmRecord)
    opening = insert(session, CrmRecord).from_select(
        [column.name for column in stands.columns],
        select(
            STAGED.c.origin_id,
            literal(order.brand_id),
            STAGED.c.points,
            literal(0),
            STAGED.c.experience,
            literal(0),
            STAGED.c.tier_rank,
            literal(0),
            literal(order.import_id),
            literal(number),
            literal(now, Moment()),
        ).where(true()),
    )
    said = opening.excluded

    def higher(name: str) -> Any:
        return case((said[name] > stands.c[name], said[name]), else_=stands.c[name])

    says_more = or_(*(said[name] > stands.c[name] for name in _BALANCES))
    # Rows of one number that stand in different chunks of a file open the account together, whatever the mode.
    may_raise = true() if order.mode is Mode.RAISE else stands.c.import_id == order.import_id
    raised = await _run(
        session,
        opening.on_conflict_do_update(
            index_elements=["member_id", "brand_id"],
            set_={
                **{f"{name}_before": stands.c[name] for name in _BALANCES},
                **{name: higher(name) for name in _BALANCES},
                "import_id": said["import_id"],
                "chunk": said["chunk"],
                "at": said["at"],
            },
            where=and_(says_more, may_raise),
        ),
    )
    return raised.rowcount


def _brought(order: Order, number: int) -> Subquery:
    """What this chunk brings, one row a number: differences, and the tier when it is a higher one than before.

    `turn` counts the rows of one member, who may have several numbers since somebody was merged into him.
    """
    stands = table_of(CrmRecord)
    return (
        select(
            STAGED.c.member_id,
            STAGED.c.entry_id,
            (stands.c.points - stands.c.points_before).label("points"),
            (stands.c.experience - stands.c.experience_before).label("experience"),
            case((stands.c.tier_rank > stands.c.tier_rank_before, stands.c.tier_rank)).label("grant_rank"),
            func.row_number().over(partition_by=STAGED.c.member_id, order_by=STAGED.c.entry_id).label("turn"),
        )
        .join(stands, and_(stands.c.member_id == STAGED.c.origin_id, stands.c.brand_id == order.brand_id))
        .where(stands.c.import_id == order.import_id, stands.c.chunk == number)
        .subquery()
    )


def _opened() -> Subquery:
    """The same of numbers that are all new: what the rows say."""
    return select(
        STAGED.c.member_id,
        STAGED.c.entry_id,
        STAGED.c.points,
        STAGED.c.experience,
        case((STAGED.c.tier_rank > 0, STAGED.c.tier_rank)).label("grant_rank"),
        literal(1).label("turn"),
    ).subquery()


async def _bring_standing(session: Session, order: Order, brought: Subquery, now: datetime) -> int:
    """Experience and tiers; how much experience."""
    found = await _run(
        session,
        select(func.max(brought.c.turn), func.coalesce(func.sum(brought.c.experience), 0)).where(
            or_(brought.c.experience > 0, brought.c.grant_rank.is_not(None))
        ),
    )
    turns, experience = found.one()
    for turn in range(1, (turns or 0) + 1):
        staged = (
            select(
                brought.c.member_id,
                brought.c.entry_id,
                literal(0).label("purchases"),
                literal(0, BigInteger()).label("fen"),
                brought.c.experience,
                literal(now, Moment()).label("at"),
                brought.c.grant_rank,
                case((brought.c.grant_rank.is_not(None), literal(order.tier_until, Moment()))).label("granted_until"),
            )
            .where(brought.c.turn == turn)
            .subquery()
        )
        await tier_imports.import_many(session, order.brand_id, staged, now)
    return int(experience)


async def _bring_points(session: Session, order: Order, number: int, brought: Subquery, now: datetime) -> int:
    """Points, from the brand's issuance, with the lifetime of points that are earned today; how many."""
    found = await _run(
        session,
        select(brought.c.member_id, brought.c.points).where(brought.c.points > 0).order_by(brought.c.member_id),
    )
    rows = found.all()
    expires_at = ledger.lot_expiry(await ledger.policy_of(session, order.group_id), now)
    transfers: list[Transfer] = []
    # Each account once in a transfer: a member of several numbers gets one credit of all.
    owed: dict[uuid.UUID, int] = {}
    for member_id, points in rows:
        owed[member_id] = owed.get(member_id, 0) + points
    credits = iter(owed.items())
    while some := list(islice(credits, OPENED_AT_ONCE_MAX)):
        transfer_id = new_id()
        source = ledger.issuance(order.brand_id, ledger.POINTS, number)
        legs = (
            Leg(source, -sum(points for _member, points in some)),
            *(Leg(AccountId(member_id, ledger.POINTS, Purpose.AVAILABLE), points) for member_id, points in some),
        )
        transfers.append(Transfer(transfer_id, REASON, legs, lots_expire_at=expires_at))
    await post_many(session, transfers, now)
    return sum(owed.values())


async def _held_back(session: Session, order: Order) -> int:
    stands = table_of(CrmRecord)
    found = await _run(
        session,
        select(func.count())
        .select_from(STAGED)
        .join(stands, and_(stands.c.member_id == STAGED.c.origin_id, stands.c.brand_id == order.brand_id))
        .where(or_(*(STAGED.c[name] > stands.c[name] for name in _BALANCES))),
    )
    return int(found.scalar_one())


async def _run(session: Session, statement: Executable) -> CursorResult[*tuple[Any, ...]]:
    # Without the option SQLAlchemy forgets how many rows an INSERT … SELECT made.
    return await (await session.connection()).execute(statement, execution_options={"preserve_rowcount": True})
