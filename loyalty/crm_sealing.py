"""A chunk's phone numbers, and what they become if they are new: ids, keys, sealed fields and rows for the database.

All of it is work without the database, for thousands of numbers at once. Which of it is used turns out when the chunk
lands; so nothing is sealed before it is wanted.
"""

import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kit.vault import KEY_BYTES, Vault
from loyalty import ledger, members, profiles
from loyalty.consents import Channel
from loyalty.crm_file import Row, merged
from loyalty.crm_records import REASON, Order
from loyalty.experience import EntryKind
from loyalty.ledger import Policy, bulk, copying
from loyalty.ledger.bulk import Openings
from loyalty.ledger.copying import Bytes, Column
from loyalty.phones import phone_fingerprint
from loyalty.profiles import parse_birthday

IDENTITIES = "phone_identity (fingerprint, group_id, member_id, origin_id)"
STAGED_COLUMNS = (
    "fingerprint",
    "member_id",
    "origin_id",
    "entry_id",
    "is_new",
    "has_name",
    "has_birthday",
    "has_consents",
    "card_number",
    "points",
    "experience",
    "tier_rank",
    "joined_at",
)
"""Of the temporary table through which numbers go that may be known."""

_NONCE_BYTES = 12
_NO, _YES = b"\x00", b"\x01"


@dataclass(frozen=True)
class Aim:
    """Where rows go, and by which rules. `rules_version`: the brand's rules for tiers that are in force."""

    order: Order
    rules_version: int
    policy: Policy


@dataclass(frozen=True)
class Numbers:
    """What the rows of a chunk say, one row a phone number, in the order of the keyed hashes.

    One order for every import, so that two at a time wait for each other and not in a circle. `ids` are those of the
    members that new numbers make.
    """

    chunk: int
    fingerprints: list[bytes]
    rows: list[Row]
    ids: Bytes
    cards: list[str]
    duplicates: int

    def said(self) -> dict[bytes, Row]:
        return dict(zip(self.fingerprints, self.rows, strict=True))


@dataclass(frozen=True)
class Enrolled:
    """Members as they are stored, by table: `rows` as names and values, or `copies` for PostgreSQL."""

    rows: Sequence[tuple[str, Sequence[dict[str, Any]]]] = ()
    copies: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True)
class Staging:
    """Numbers on their way into the temporary table: as names and values, or all of them for PostgreSQL's COPY."""

    content: bytes | Sequence[dict[str, Any]]
    consents: Sequence[tuple[bytes, str, str]]
    """Keyed hash of the number, kind, version."""


@dataclass(frozen=True)
class Additions:
    """For PostgreSQL, all that a chunk of new numbers writes, as of the moment `at`.

    `tiers` stands for the temporary table: the numbers with a tier, whose standing is not among the copies.
    """

    at: datetime
    identities: bytes
    copies: Sequence[tuple[str, bytes]]
    openings: Openings
    experience: int
    tiers: Staging | None


def gather(vault: Vault, group_id: int, chunk: int, rows: Sequence[Row], now: datetime) -> Numbers:
    """Merge rows of one number, and draw ids."""
    said = {row.phone_e164: row for row in rows}
    if len(said) < len(rows):
        said = {}
        for row in rows:
            before = said.get(row.phone_e164)
            said[row.phone_e164] = row if before is None else merged(before, row)
    hashed = {phone_fingerprint(vault, group_id, number): row for number, row in said.items()}
    fingerprints = sorted(hashed)
    ordered = [hashed[fingerprint] for fingerprint in fingerprints]
    # In rising order, as the ids are: rows that follow each other meet the same pages of an index.
    cards = sorted(members.new_card_numbers(len(ordered)))
    return Numbers(chunk, fingerprints, ordered, _new_ids(len(ordered), now), cards, len(rows) - len(ordered))


def _new_ids(count: int, now: datetime) -> Bytes:
    # RFC 9562, 5.7: 48 bits of milliseconds, version, 12 random bits, variant, 62 random bits; here in rising order.
    chance = np.frombuffer(os.urandom(10 * count), np.uint8).reshape(count, 10)
    chance = chance[np.argsort(np.ascontiguousarray(chance[:, :8]).view(">u8").ravel())]
    milliseconds = (int(now.timestamp() * 1000)).to_bytes(6, "big")
    ids = np.empty((count, 16), np.uint8)
    ids[:, :6], ids[:, 6:] = np.frombuffer(milliseconds, np.uint8), chance
    ids[:, 6] = ids[:, 6] & 0x0F | 0x70
    ids[:, 8] = ids[:, 8] & 0x3F | 0x80
    return ids


def stage(numbers: Numbers, *, on_postgresql: bool, picked: Sequence[int] | None = None) -> Staging:
    """The numbers, or some of them, for the temporary table."""
    some = numbers if picked is None else _some(numbers, picked)
    consents = [
        (fingerprint, *given)
        for fingerprint, row in zip(some.fingerprints, some.rows, strict=True)
        for given in row.consents
    ]
    if not on_postgresql:
        return Staging(_staged_values(some), consents)
    rows, ids = some.rows, some.ids
    columns: list[Column] = [
        some.fingerprints,
        *(ids, ids, ids, _YES),
        [_YES if row.name is not None else _NO for row in rows],
        [_YES if row.birthday is not None else _NO for row in rows],
        [_YES if row.consents else _NO for row in rows],
        [card.encode() for card in some.cards],
        copying.numbers([row.points for row in rows]),
        copying.numbers([row.experience for row in rows]),
        copying.numbers([row.tier_rank for row in rows], 32),
        _moments([row.joined_at for row in rows], None),
    ]
    return Staging(copying.rows(len(rows), columns), consents)


def _staged_values(numbers: Numbers) -> list[dict[str, Any]]:
    return [
        {
            "fingerprint": fingerprint,
            **dict.fromkeys(("member_id", "origin_id", "entry_id"), uuid.UUID(bytes=own.tobytes())),
            "is_new": True,
            "has_name": row.name is not None,
            "has_birthday": row.birthday is not None,
            "has_consents": bool(row.consents),
            "card_number": card,
            "points": row.points,
            "experience": row.experience,
            "tier_rank": row.tier_rank,
            "joined_at": row.joined_at,
        }
        for fingerprint, own, card, row in zip(
            numbers.fingerprints, numbers.ids, numbers.cards, numbers.rows, strict=True
        )
    ]


def _some(numbers: Numbers, picked: Sequence[int]) -> Numbers:
    return Numbers(
        numbers.chunk,
        [numbers.fingerprints[number] for number in picked],
        [numbers.rows[number] for number in picked],
        numbers.ids[np.asarray(picked, np.intp)],
        [numbers.cards[number] for number in picked],
        0,
    )


def enrol(
    vault: Vault, aim: Aim, numbers: Numbers, wanted: Iterable[bytes], now: datetime, *, on_postgresql: bool
) -> Enrolled:
    """Make members of the numbers with these keyed hashes, and seal what is known of them."""
    asked = set(wanted)
    some = _some(numbers, [place for place, one in enumerate(numbers.fingerprints) if one in asked])
    secrets = _seal(vault, aim.order.group_id, some)
    if on_postgresql:
        return Enrolled(copies=_member_copies(aim, some, secrets, now))
    ids = [uuid.UUID(bytes=own.tobytes()) for own in some.ids]
    known = {"group_id": aim.order.group_id, "created_at": now}
    told = [
        {"member_id": own, "name_sealed": name, "birthday_sealed": birthday, "birthday_key": key}
        for own, name, birthday, key in zip(ids, secrets.names, secrets.birthdays, secrets.birthday_keys, strict=True)
        if name is not None or key is not None
    ]
    return Enrolled(
        rows=(
            (
                "member",
                [
                    {"member_id": own, "phone_sealed": phone, **known}
                    for own, phone in zip(ids, secrets.phones, strict=True)
                ],
            ),
            (
                "member_key",
                [{"member_id": own, "key_sealed": key} for own, key in zip(ids, secrets.keys, strict=True)],
            ),
            ("member_profile", told),
        )
    )


@dataclass(frozen=True)
class _Secrets:
    """Sealed fields of new members, in their order."""

    phones: list[bytes]
    keys: list[bytes]
    names: list[bytes | None] = field(default_factory=list)
    birthdays: list[bytes | None] = field(default_factory=list)
    birthday_keys: list[bytes | None] = field(default_factory=list)


def _seal(vault: Vault, group_id: int, numbers: Numbers) -> _Secrets:
    # As `members.sealed_identity` and `members.seal_field` seal for one, with their contexts: setting up a key's cipher
    # once for all fields of a member, and drawing chance once for all members, halves the time.
    count, ids, found_by = len(numbers.rows), numbers.ids.tobytes(), _BirthdayKeys(vault, group_id)
    owners = [ids[at : at + 16] for at in range(0, len(ids), 16)]
    fresh, chance = os.urandom(KEY_BYTES * count), os.urandom(3 * _NONCE_BYTES * count)
    keys = [fresh[at : at + KEY_BYTES] for at in range(0, len(fresh), KEY_BYTES)]
    nonces = iter([chance[at : at + _NONCE_BYTES] for at in range(0, len(chance), _NONCE_BYTES)])
    secrets = _Secrets([], vault.seal_many(keys, [members.KEY_CONTEXT + own for own in owners]))
    for own, key, row, one, two, three in zip(owners, keys, numbers.rows, nonces, nonces, nonces, strict=True):
        encrypt, context = AESGCM(key).encrypt, members.FIELD_CONTEXT + own
        secrets.phones.append(one + encrypt(one, row.phone_e164.encode(), members.PHONE_CONTEXT + own))
        name = birthday = found = None
        if row.name is not None:
            name = two + encrypt(two, row.name.encode(), context + profiles.NAME_CONTEXT)
        if row.birthday is not None:
            birthday = three + encrypt(three, row.birthday.encode(), context + profiles.BIRTHDAY_CONTEXT)
            found = found_by[row.birthday]
        secrets.names.append(name)
        secrets.birthdays.append(birthday)
        secrets.birthday_keys.append(found)
    return secrets


class _BirthdayKeys(dict[str, bytes]):
    """The keyed hash of each day of a year, made when it is first asked for."""

    def __init__(self, vault: Vault, group_id: int) -> None:
        self._vault, self._group_id = vault, group_id

    def __missing__(self, birthday: str) -> bytes:
        found = self[birthday] = profiles.birthday_key(self._vault, self._group_id, parse_birthday(birthday))
        return found


def _member_copies(aim: Aim, numbers: Numbers, secrets: _Secrets, now: datetime) -> list[tuple[str, bytes]]:
    ids, count = numbers.ids, len(numbers.rows)
    group, at = copying.number(aim.order.group_id, 32), copying.number(copying.moment(now))
    told = [
        place
        for place, (name, key) in enumerate(zip(secrets.names, secrets.birthday_keys, strict=True))
        if name is not None or key is not None
    ]
    profile: list[Column] = [
        ids[told],
        *([column[place] for place in told] for column in (secrets.names, secrets.birthdays, secrets.birthday_keys)),
    ]
    return [
        (
            "member (member_id, group_id, phone_sealed, created_at)",
            copying.rows(count, [ids, group, secrets.phones, at]),
        ),
        ("member_key (member_id, key_sealed)", copying.rows(count, [ids, secrets.keys])),
        (
            "member_profile (member_id, name_sealed, birthday_sealed, birthday_key)",
            copying.rows(len(told), profile),
        ),
    ]


def add(vault: Vault, aim: Aim, numbers: Numbers, now: datetime) -> Additions:
    """All that the numbers write if every one of them is new."""
    rows, ids, order = numbers.rows, numbers.ids, aim.order
    group = copying.number(order.group_id, 32)
    points = np.fromiter((row.points for row in rows), np.int64, len(rows))
    experience = np.fromiter((row.experience for row in rows), np.int64, len(rows))
    ranks = np.fromiter((row.tier_rank for row in rows), np.int64, len(rows))
    counted, credited = (experience > 0) & (ranks == 0), points > 0
    source = ledger.issuance(order.brand_id, ledger.POINTS, numbers.chunk)
    expiry = ledger.lot_expiry(aim.policy, now)
    return Additions(
        now,
        copying.rows(len(rows), [numbers.fingerprints, group, ids, ids]),
        [
            *_member_copies(aim, numbers, _seal(vault, order.group_id, numbers), now),
            _cards(aim, numbers, now),
            _records(aim, numbers, points, experience, ranks, now),
            _experience(aim, ids[counted], experience[counted], now),
            _consents(numbers, now),
        ],
        bulk.prepare_openings(source, ids[credited], points[credited], REASON, now, expiry),
        int(experience[counted].sum()),
        stage(numbers, on_postgresql=True, picked=np.flatnonzero(ranks).tolist()) if ranks.any() else None,
    )


def _cards(aim: Aim, numbers: Numbers, now: datetime) -> tuple[str, bytes]:
    at = copying.number(copying.moment(now))
    columns: list[Column] = [
        numbers.ids,
        copying.number(aim.order.brand_id, 32),
        [card.encode() for card in numbers.cards],
        _moments([row.joined_at for row in numbers.rows], at),
        # Made due at once: to mark cards afterwards costs more than to make them.
        [at if row.experience or row.tier_rank else None for row in numbers.rows],
    ]
    name = "card (member_id, brand_id, card_number, joined_at, tier_check_at)"
    return name, copying.rows(len(numbers.rows), columns)


def _records(aim: Aim, numbers: Numbers, points: Any, experience: Any, ranks: Any, now: datetime) -> tuple[str, bytes]:
    order, none = aim.order, bytes(8)
    columns: list[Column] = [
        numbers.ids,
        copying.number(order.brand_id, 32),
        *(copying.numbers(points), none, copying.numbers(experience), none),
        *(copying.numbers(ranks, 32), bytes(4)),
        order.import_id.bytes,
        copying.number(numbers.chunk, 32),
        copying.number(copying.moment(now)),
    ]
    name = (
        "crm_record (member_id, brand_id, points, points_before, experience, experience_before, tier_rank,"
        " tier_rank_before, import_id, chunk, at)"
    )
    return name, copying.rows(len(numbers.rows), columns)


def _experience(aim: Aim, ids: Bytes, experience: Any, now: datetime) -> tuple[str, bytes]:
    # As `tier_imports` enters the first figures of a card on which nothing was decided, for cards that are due anyway.
    at = copying.number(copying.moment(now))
    columns: list[Column] = [
        ids,
        ids,
        EntryKind.IMPORTED.encode(),
        copying.number(aim.order.brand_id, 32),
        copying.number(1, 32),
        *(bytes(8), bytes(8), copying.numbers(experience)),
        *(at, at),
        copying.number(aim.rules_version, 32),
        bytes(4),
    ]
    name = (
        "experience_entry (member_id, entry_id, kind, brand_id, seq, purchases, fen, experience, at, recorded_at,"
        " rules_version, grant_rank)"
    )
    return name, copying.rows(len(ids), columns)


def _consents(numbers: Numbers, now: datetime) -> tuple[str, bytes]:
    given = [(place, *one) for place, row in enumerate(numbers.rows) for one in row.consents]
    columns: list[Column] = [
        numbers.ids[[place for place, _kind, _version in given]],
        _new_ids(len(given), now),
        [kind.encode() for _place, kind, _version in given],
        copying.number(1, 32),
        [version.encode() for _place, _kind, version in given],
        _YES,
        copying.number(copying.moment(now)),
        Channel.CRM.encode(),
    ]
    name = "consent (member_id, consent_id, kind, number, version, is_given, at, channel)"
    return name, copying.rows(len(given), columns)


def _moments(moments: Sequence[datetime | None], otherwise: bytes | None) -> list[bytes | None]:
    told: dict[datetime | None, bytes | None] = {
        one: otherwise if one is None else copying.number(copying.moment(one)) for one in set(moments)
    }
    return [told[one] for one in moments]
