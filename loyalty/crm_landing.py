"""Landing a chunk of a CRM's rows: from the temporary table into members, cards, points and standing, all at once.

Everything is a few statements for thousands of rows, in the caller's transaction. What a row may bring is decided by
one of them, the one that raises `CrmRecord`; whatever follows moves what that one let through.
"""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CursorResult,
    Executable,
    Subquery,
    and_,
    case,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    update,
)

from kit.db import Moment, Session, insert, table_of
from kit.ids import new_id
from kit.vault import Vault
from loyalty import crm_staging, ledger, members, profiles, tier_imports
from loyalty.consents import Channel, Consent
from loyalty.crm_file import Row
from loyalty.crm_records import Counts, CrmRecord, Mode, Order
from loyalty.crm_staging import STAGED, STAGED_CONSENTS, Prepared
from loyalty.ledger import AccountId, Leg, Purpose, Transfer
from loyalty.ledger.bulk import post_many
from loyalty.members import Card, Member, MemberKey, MemberProfile, PhoneIdentity
from loyalty.profiles import parse_birthday

REASON = "crm import"
CREDITS_MAX = 100
"""Members who get their points by one transfer: fewer transfers are fewer entries on the brand's side."""
Said = Callable[[], Awaitable[Mapping[bytes, Row]]]
_BALANCES = ("points", "experience", "tier_rank")


async def land(
    session: Session,
    vault: Vault,
    order: Order,
    number: int,
    prepared: Prepared,
    said: Said,
    now: datetime,
) -> Counts:
    """Bring a chunk in, in the caller's transaction. `said`: its rows by keyed hash, if that should need them."""
    if not prepared.numbers:
        return Counts()
    await crm_staging.stage(session, prepared)
    new_members = await _bind(session, order, prepared)
    if new_members == prepared.numbers and prepared.additions:
        # The first import of a CRM is nothing but this: COPY into the tables themselves, at a third of the cost.
        await crm_staging.add_members(session, prepared)
        changed, experience, brought = prepared.numbers, prepared.experience, _opened(true())
        standing = _opened(STAGED.c.tier_rank > 0) if prepared.has_tiers else None
    else:
        await _add_members(session, order, now)
        await _give_cards(session, order, now)
        await _fill_profiles(session, vault, order, said)
        await _join_earlier(session, order)
        changed, experience = await _raise_records(session, order, number, now), 0
        standing = brought = _brought(order, number)
    if prepared.consents:
        await _consent(session, now)
    points = 0
    if changed:
        if standing is not None:
            experience += await _bring_standing(session, order, standing, now)
        points = await _bring_points(session, order, number, brought, now)
    return Counts(
        new_members=new_members,
        known_members=prepared.numbers - new_members,
        changed=changed,
        held_back=0 if changed == prepared.numbers else await _held_back(session, order),
        points=points,
        experience=experience,
    )


async def _bind(session: Session, order: Order, prepared: Prepared) -> int:
    """Find whose the numbers are, and give those that are nobody's to new members; how many."""
    made = await _run(
        session,
        insert(session, PhoneIdentity)
        .from_select(
            ["fingerprint", "group_id", "member_id", "origin_id"],
            select(STAGED.c.fingerprint, literal(order.group_id), STAGED.c.member_id, STAGED.c.member_id).where(true()),
        )
        .on_conflict_do_nothing(),
    )
    if made.rowcount < prepared.numbers:
        identity = table_of(PhoneIdentity)
        await _run(
            session,
            update(STAGED)
            .where(identity.c.fingerprint == STAGED.c.fingerprint, identity.c.member_id != STAGED.c.member_id)
            .values(member_id=identity.c.member_id, origin_id=identity.c.origin_id, is_new=False),
        )
    return made.rowcount


async def _add_members(session: Session, order: Order, now: datetime) -> None:
    """The new members, with what is known of them."""
    await _run(
        session,
        table_of(Member)
        .insert()
        .from_select(
            ["member_id", "group_id", "phone_sealed", "created_at"],
            select(STAGED.c.member_id, literal(order.group_id), STAGED.c.phone_sealed, literal(now, Moment())).where(
                STAGED.c.is_new
            ),
        ),
    )
    await _run(
        session,
        table_of(MemberKey)
        .insert()
        .from_select(
            ["member_id", "key_sealed"], select(STAGED.c.member_id, STAGED.c.key_sealed).where(STAGED.c.is_new)
        ),
    )
    fields = ["name_sealed", "birthday_sealed", "birthday_key"]
    await _run(
        session,
        table_of(MemberProfile)
        .insert()
        .from_select(
            ["member_id", *fields],
            select(STAGED.c.member_id, *(STAGED.c[field] for field in fields)).where(
                STAGED.c.is_new, or_(STAGED.c.name_sealed.is_not(None), STAGED.c.birthday_key.is_not(None))
            ),
        ),
    )


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
                and_(STAGED.c.name_sealed.is_not(None), profile.c.name_sealed.is_(None)),
                and_(STAGED.c.birthday_key.is_not(None), profile.c.birthday_key.is_(None)),
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


def _opened(which: ColumnElement[bool]) -> Subquery:
    """The same when every number is new: all that the rows say."""
    return (
        select(
            STAGED.c.member_id,
            STAGED.c.entry_id,
            STAGED.c.points,
            STAGED.c.experience,
            case((STAGED.c.tier_rank > 0, STAGED.c.tier_rank)).label("grant_rank"),
            literal(1).label("turn"),
        )
        .where(which)
        .subquery()
    )


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
    while some := list(islice(credits, CREDITS_MAX)):
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
