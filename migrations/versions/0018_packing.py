"""What is packed where, marks that hold items back or recall them, lots, and acts of brands."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_KINDS = "'add', 'remove', 'empty', 'circle', 'too_deep'"
_REASONS = (
    "'stolen', 'lost', 'sample', 'damaged', 'overprint', 'expired', 'safety', 'quality', 'labelling', "
    "'investigation', 'diversion', 'other'"
)
_VALUES = (
    "(layer = 'state' AND value IN ('active', 'voided')) OR "
    "(layer IN ('allotment', 'lot') AND length(value) BETWEEN 1 AND 60)"
)


def upgrade() -> None:
    op.create_table(
        "packing",
        sa.Column("child", _NAME, nullable=False),
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("event_key", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("parent", _NAME, nullable=False),
        sa.Column("until", Moment(), nullable=True),
        sa.CheckConstraint(f"kind IN ({_KINDS})", name=op.f("ck_packing_kind")),
        sa.CheckConstraint(
            "until = since OR kind = 'add' AND (until IS NULL OR until > since)", name=op.f("ck_packing_until")
        ),
        sa.PrimaryKeyConstraint("child", "brand_id", "since", "event_key", name=op.f("pk_packing")),
    )
    still = sa.text("until IS NULL")
    op.create_index(
        "uq_packing_open", "packing", ["child", "brand_id"], unique=True, postgresql_where=still, sqlite_where=still
    )
    op.create_index("ix_packing_parent", "packing", ["parent", "brand_id", "since"])
    op.create_table(
        "undone_event",
        sa.Column("event_key", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("event_key", name=op.f("pk_undone_event")),
    )
    _create_marks()
    _create_lots()
    op.create_table(
        "sales_region",
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("brand_id", "holder", "region", name=op.f("pk_sales_region")),
    )
    op.create_table(
        "brand_act",
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("act_id", sa.Uuid(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.CheckConstraint("length(kind) BETWEEN 1 AND 40", name=op.f("ck_brand_act_kind")),
        sa.PrimaryKeyConstraint("brand_id", "act_id", name=op.f("pk_brand_act")),
    )


def _create_marks() -> None:
    op.create_table(
        "life_mark",
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("mark_id", sa.Uuid(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("first_index", sa.Integer(), nullable=False),
        sa.Column("last_index", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("by", sa.Text(), nullable=True),
        sa.Column("lifted_at", Moment(), nullable=True),
        sa.Column("lifted_by", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('held', 'recalled', 'voided')", name=op.f("ck_life_mark_kind")),
        sa.CheckConstraint(f"reason IN ({_REASONS})", name=op.f("ck_life_mark_reason")),
        sa.CheckConstraint("0 <= first_index AND first_index <= last_index", name=op.f("ck_life_mark_range")),
        sa.CheckConstraint("lifted_at IS NULL OR kind = 'held'", name=op.f("ck_life_mark_lifted")),
        sa.PrimaryKeyConstraint("brand_id", "mark_id", name=op.f("pk_life_mark")),
    )
    lasting = sa.text("lifted_at IS NULL")
    op.create_index(
        "ix_life_mark_lasting", "life_mark", ["brand_id", "subject"], postgresql_where=lasting, sqlite_where=lasting
    )


def _create_lots() -> None:
    with op.batch_alter_table("order_range") as ranges:
        ranges.drop_constraint(op.f("ck_order_range_value"), type_="check")
        ranges.create_check_constraint(op.f("ck_order_range_value"), _VALUES)
    op.create_table(
        "item_lot",
        sa.Column("thing", _NAME, nullable=False),
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("lot", sa.Text(), nullable=True),
        sa.Column("produced_on", sa.Text(), nullable=True),
        sa.Column("expires_on", sa.Text(), nullable=True),
        sa.Column("event_time", Moment(), nullable=False),
        sa.Column("event_key", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("thing", "brand_id", name=op.f("pk_item_lot")),
    )
    # A lot's items are found for a recall.
    op.create_index("ix_item_lot_lot", "item_lot", ["brand_id", "lot"])
    op.create_table(
        "lot_dates",
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("produced_on", sa.Text(), nullable=True),
        sa.Column("expires_on", sa.Text(), nullable=True),
        sa.CheckConstraint("produced_on <= expires_on", name=op.f("ck_lot_dates_order")),
        sa.PrimaryKeyConstraint("brand_id", "subject", name=op.f("pk_lot_dates")),
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
