"""Chains of entries, holds, points lots."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from kit.db import Moment
from loyalty.ledger import append_only_ddl
from loyalty.ledger.chain import functions_ddl, genesis, link, seal

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_BATCH_ROWS = 10_000
_BATCH_ACCOUNTS = 1_000
_BALANCE_MAX = 10**18
_NAME = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
_PURPOSES = "'issuance', 'budget', 'stock', 'available', 'held', 'pending', 'delivered', 'redeemed', 'spent', 'expired'"
_KEY = ("holder_id", "asset", "purpose")


def upgrade() -> None:
    connection = op.get_bind()
    for statement in functions_ddl(connection.dialect.name):
        op.execute(statement)
    old = [_set_aside(connection, name) for name in ("ledger_account", "ledger_entry", "ledger_transfer")]
    _copy(connection, _make_tables(), *old)
    for table in old:
        op.drop_table(table.name)
    for statement in append_only_ddl(connection.dialect.name):
        op.execute(statement)


def _set_aside(connection: sa.Connection, name: str) -> sa.Table:
    aside = f"{name}_before"
    op.rename_table(name, aside)
    if connection.dialect.name == "postgresql":
        op.execute(f"ALTER TABLE {aside} RENAME CONSTRAINT pk_{name} TO pk_{aside}")
    columns = {
        "ledger_account": [("balance", sa.BigInteger())],
        "ledger_entry": [
            ("transfer_id", sa.Uuid()),
            ("amount", sa.BigInteger()),
            ("at", Moment()),
        ],
        "ledger_transfer": [
            ("transfer_id", sa.Uuid()),
            ("fingerprint", sa.LargeBinary()),
            ("reason", sa.Text()),
            ("at", Moment()),
        ],
    }[name]
    key = [] if name == "ledger_transfer" else [("holder_id", sa.Uuid()), ("asset", sa.Text()), ("purpose", sa.Text())]
    return sa.Table(aside, sa.MetaData(), *(sa.Column(*column) for column in (*key, *columns)))


def _make_tables() -> dict[str, sa.Table]:
    account = op.create_table(
        "ledger_account",
        sa.Column("holder_id", sa.Uuid(), nullable=False),
        sa.Column("asset", _NAME, nullable=False),
        sa.Column("purpose", _NAME, nullable=False),
        sa.Column("balance", sa.BigInteger(), nullable=False),
        sa.Column("floor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("balance BETWEEN floor AND 1000000000000000000", name=op.f("ck_ledger_account_balance")),
        sa.CheckConstraint(
            "floor = 0 OR (floor BETWEEN -1000000000000000000 AND -1"
            " AND (purpose = 'issuance' OR (purpose = 'available' AND asset = 'points')))",
            name=op.f("ck_ledger_account_floor"),
        ),
        sa.CheckConstraint("seq >= 0 AND length(head) = 32", name=op.f("ck_ledger_account_head")),
        sa.CheckConstraint(f"purpose IN ({_PURPOSES})", name=op.f("ck_ledger_account_purpose")),
        sa.PrimaryKeyConstraint(*_KEY, name=op.f("pk_ledger_account")),
    )
    entry = op.create_table(
        "ledger_entry",
        sa.Column("holder_id", sa.Uuid(), nullable=False),
        sa.Column("asset", _NAME, nullable=False),
        sa.Column("purpose", _NAME, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("transfer_id", sa.Uuid(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("balance_after", sa.BigInteger(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("link", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("amount <> 0 AND abs(amount) <= 1000000000000", name=op.f("ck_ledger_entry_amount")),
        sa.CheckConstraint("seq > 0 AND length(link) = 32", name=op.f("ck_ledger_entry_link")),
        sa.PrimaryKeyConstraint(*_KEY, "seq", name=op.f("pk_ledger_entry")),
        sa.UniqueConstraint(
            "holder_id",
            "transfer_id",
            "asset",
            "purpose",
            name=op.f("uq_ledger_entry_holder_id_transfer_id_asset_purpose"),
        ),
    )
    transfer = op.create_table(
        "ledger_transfer",
        sa.Column("transfer_id", sa.Uuid(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("lots_expire_at", Moment(), nullable=True),
        sa.Column("undoes", sa.Uuid(), nullable=True),
        sa.Column("held_until", Moment(), nullable=True),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("transfer_id", name=op.f("pk_ledger_transfer")),
    )
    op.create_table(
        "ledger_hold",
        sa.Column("transfer_id", sa.Uuid(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("legs", sa.Text(), nullable=False),
        sa.Column("lots_expire_at", Moment(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("made_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("resolved_at", Moment(), nullable=True),
        sa.CheckConstraint("(state = 'pending') = (resolved_at IS NULL)", name=op.f("ck_ledger_hold_resolved_at")),
        sa.CheckConstraint("state IN ('pending', 'posted', 'voided', 'expired')", name=op.f("ck_ledger_hold_state")),
        sa.PrimaryKeyConstraint("transfer_id", name=op.f("pk_ledger_hold")),
    )
    _index("ix_ledger_hold_due", "ledger_hold", ["expires_at"], "state = 'pending'")
    lot = op.create_table(
        "points_lot",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("lot_id", sa.Uuid(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("left", sa.BigInteger(), nullable=False),
        sa.Column("earned_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=True),
        sa.CheckConstraint('amount > 0 AND "left" BETWEEN 0 AND amount', name=op.f("ck_points_lot_left")),
        sa.PrimaryKeyConstraint("member_id", "lot_id", name=op.f("pk_points_lot")),
    )
    _index("ix_points_lot_due", "points_lot", ["expires_at"], '"left" > 0 AND expires_at IS NOT NULL')
    _index("ix_points_lot_live", "points_lot", ["member_id", "expires_at"], '"left" > 0')
    use = op.create_table(
        "points_lot_use",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("transfer_id", sa.Uuid(), nullable=False),
        sa.Column("lot_id", sa.Uuid(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("returned", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("amount > 0 AND returned BETWEEN 0 AND amount", name=op.f("ck_points_lot_use_amount")),
        sa.PrimaryKeyConstraint("member_id", "transfer_id", "lot_id", name=op.f("pk_points_lot_use")),
    )
    op.create_table(
        "points_policy",
        sa.Column("group_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("lifetime_months", sa.Integer(), nullable=True),
        sa.Column("debt_max_points", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "debt_max_points BETWEEN 0 AND 1000000000000", name=op.f("ck_points_policy_debt_max_points")
        ),
        sa.CheckConstraint("lifetime_months BETWEEN 1 AND 120", name=op.f("ck_points_policy_lifetime_months")),
        sa.PrimaryKeyConstraint("group_id", name=op.f("pk_points_policy")),
    )
    return {table.name: table for table in (account, entry, transfer, lot, use)}


def _index(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=False, postgresql_where=where, sqlite_where=where)


def _copy(
    connection: sa.Connection,
    made: dict[str, sa.Table],
    accounts: sa.Table,
    entries: sa.Table,
    transfers: sa.Table,
) -> None:
    _write(connection, made["ledger_transfer"], (_sealed(row) for row in _streamed(connection, sa.select(transfers))))
    key = [entries.c[name] for name in _KEY]
    same = sa.and_(*(accounts.c[name] == entries.c[name] for name in _KEY))
    ordered = (
        sa.select(entries, accounts.c.balance)
        .join(accounts, same, isouter=True)
        .order_by(*key, entries.c.at, entries.c.transfer_id)
    )
    histories = itertools.groupby(
        _streamed(connection, ordered), lambda row: (row.holder_id, row.asset, row.purpose)
    )  # fmt: skip
    for batch in _batches((_History(history) for _, history in histories), _BATCH_ACCOUNTS):
        _write(connection, made["ledger_account"], (history.account for history in batch))
        _write(connection, made["ledger_entry"], itertools.chain.from_iterable(history.entries for history in batch))
        _write(connection, made["points_lot"], itertools.chain.from_iterable(history.lots for history in batch))
        _write(connection, made["points_lot_use"], itertools.chain.from_iterable(history.uses for history in batch))


def _sealed(row: Any) -> dict[str, Any]:
    return {**row._mapping, "seal": seal(row.transfer_id, row.fingerprint, row.reason, row.at)}


class _History:
    """One account's entries in their order, chained, and the lots of a member's points."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self.entries: list[dict[str, Any]] = []
        self.lots: list[dict[str, Any]] = []
        self.uses: list[dict[str, Any]] = []
        balance, head = 0, b""
        for row in rows:
            key = {name: getattr(row, name) for name in _KEY}
            head = head or genesis(row.holder_id, row.asset, row.purpose)
            balance, seq = balance + row.amount, len(self.entries) + 1
            head = link(head, row.transfer_id, row.amount, balance, seq, row.at)
            self.entries.append(
                {
                    **key,
                    "seq": seq,
                    "transfer_id": row.transfer_id,
                    "amount": row.amount,
                    "balance_after": balance,
                    "at": row.at,
                    "link": head,
                }
            )
            if (row.asset, row.purpose) == ("points", "available"):
                self._keep_lots(row)
            self.account = {
                **key,
                # As it was: a balance that was wrong is for `fanxing ledger verify` to find.
                "balance": balance if row.balance is None else row.balance,
                "floor": -_BALANCE_MAX if row.purpose == "issuance" else 0,
                "seq": seq,
                "head": head,
            }

    def _keep_lots(self, row: Any) -> None:
        about = {"member_id": row.holder_id, "amount": abs(row.amount)}
        if row.amount > 0:
            made = {"lot_id": row.transfer_id, "left": row.amount, "earned_at": row.at, "expires_at": None}
            self.lots.append({**about, **made})
            return
        wanted = -row.amount
        for lot in self.lots:
            if share := min(wanted, lot["left"]):
                lot["left"] -= share
                wanted -= share
                use = {"transfer_id": row.transfer_id, "lot_id": lot["lot_id"], "amount": share, "returned": 0}
                self.uses.append({**about, **use})


def _streamed(connection: sa.Connection, statement: sa.Select[Any]) -> Iterator[Any]:
    return iter(connection.execute(statement, execution_options={"yield_per": _BATCH_ROWS}))


def _write(connection: sa.Connection, table: sa.Table, rows: Iterable[dict[str, Any]]) -> None:
    for batch in _batches(rows, _BATCH_ROWS):
        connection.execute(table.insert(), batch)


def _batches(rows: Iterable[Any], most: int) -> Iterator[list[Any]]:
    remaining = iter(rows)
    while batch := list(itertools.islice(remaining, most)):
        yield batch


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
