"""Captured EPCIS events, the things that they name, and captures."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_TYPES = "'AggregationEvent', 'AssociationEvent', 'ObjectEvent', 'TransactionEvent', 'TransformationEvent'"
_PARTS = "'epc', 'parent', 'child', 'input', 'output', 'epc_class', 'child_class', 'input_class', 'output_class'"


def upgrade() -> None:
    op.create_table(
        "event_context",
        sa.Column("context_id", sa.Uuid(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("context_id", name=op.f("pk_event_context")),
    )
    op.create_table(
        "epcis_event",
        sa.Column("event_key", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("event_time", Moment(), nullable=False),
        sa.Column("record_time", Moment(), nullable=False),
        sa.Column("action", sa.Text(), nullable=True),
        sa.Column("biz_step", sa.Text(), nullable=True),
        sa.Column("disposition", sa.Text(), nullable=True),
        sa.Column("read_point", sa.Text(), nullable=True),
        sa.Column("biz_location", sa.Text(), nullable=True),
        sa.Column("is_error", sa.Boolean(), nullable=False),
        sa.Column("capture_id", sa.Uuid(), nullable=False),
        sa.Column("context_id", sa.Uuid(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.CheckConstraint(f"type IN ({_TYPES})", name=op.f("ck_epcis_event_type")),
        sa.PrimaryKeyConstraint("event_key", name=op.f("pk_epcis_event")),
    )
    for column in ("event_time", "record_time"):
        op.create_index(f"ix_epcis_event_brand_id_{column}", "epcis_event", ["brand_id", column, "event_key"])
    op.create_table(
        "event_thing",
        sa.Column("thing", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("event_time", Moment(), nullable=False),
        sa.Column("event_key", sa.Uuid(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.CheckConstraint(f"part IN ({_PARTS})", name=op.f("ck_event_thing_part")),
        sa.PrimaryKeyConstraint("thing", "brand_id", "event_time", "event_key", "part", name=op.f("pk_event_thing")),
    )
    op.create_table(
        "epcis_capture",
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("capture_id", sa.Uuid(), nullable=False),
        sa.Column("caller_id", sa.Uuid(), nullable=False),
        sa.Column("behaviour", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("finished_at", Moment(), nullable=False),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("accepted", sa.Integer(), nullable=False),
        sa.Column("duplicates", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("refusals", sa.JSON(), nullable=False),
        sa.CheckConstraint("behaviour IN ('rollback', 'proceed')", name=op.f("ck_epcis_capture_behaviour")),
        sa.PrimaryKeyConstraint("brand_id", "capture_id", name=op.f("pk_epcis_capture")),
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
