"""Indexes of event queries; locations; arrivals of events; named queries and subscriptions to them."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_BY_BYTES = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    for word in ("biz_step", "disposition", "read_point", "biz_location"):
        op.create_index(f"ix_epcis_event_brand_id_{word}", "epcis_event", ["brand_id", word, "event_time", "event_key"])
    op.create_index(
        "ix_epcis_event_error",
        "epcis_event",
        ["brand_id", "event_id"],
        postgresql_where=sa.text("is_error"),
        sqlite_where=sa.text("is_error = 1"),
    )
    _create_locations()
    _create_arrivals()
    op.create_table(
        "event_named_query",
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("brand_id", "name", name=op.f("pk_event_named_query")),
    )
    _create_subscriptions()


def _create_locations() -> None:
    op.create_table(
        "location",
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("location", _BY_BYTES, nullable=False),
        sa.Column("parent", _BY_BYTES, nullable=True),
        sa.PrimaryKeyConstraint("brand_id", "location", name=op.f("pk_location")),
    )
    op.create_index("ix_location_brand_id_parent", "location", ["brand_id", "parent"])
    op.create_table(
        "location_attribute",
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("location", _BY_BYTES, nullable=False),
        sa.Column("attribute", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("brand_id", "location", "attribute", name=op.f("pk_location_attribute")),
    )
    op.create_index(
        "ix_location_attribute_brand_id_attribute", "location_attribute", ["brand_id", "attribute", "location"]
    )


def _create_arrivals() -> None:
    op.create_table(
        "event_arrival",
        sa.Column("arrival_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=True),
        sa.Column("recorded_at", Moment(), nullable=False),
        sa.Column("event_keys", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("arrival_id", name=op.f("pk_event_arrival")),
    )
    op.create_index("ix_event_arrival_brand_id_position", "event_arrival", ["brand_id", "position"])
    op.create_index("uq_event_arrival_position", "event_arrival", ["position"], unique=True)
    op.create_index(
        "ix_event_arrival_unplaced",
        "event_arrival",
        ["arrival_id"],
        postgresql_where=sa.text("position IS NULL"),
        sqlite_where=sa.text("position IS NULL"),
    )


def _create_subscriptions() -> None:
    op.create_table(
        "event_subscription",
        sa.Column("subscription_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("query_name", sa.Text(), nullable=False),
        sa.Column("dest", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("token_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("schedule", sa.JSON(), nullable=True),
        sa.Column("report_if_empty", sa.Boolean(), nullable=False),
        sa.Column("initial_record_time", Moment(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("has_told", sa.Boolean(), nullable=False),
        sa.Column("due_at", Moment(), nullable=True),
        sa.Column("reported_at", Moment(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.Column("ended_why", sa.Text(), nullable=True),
        sa.CheckConstraint("(schedule IS NULL) = (due_at IS NULL)", name=op.f("ck_event_subscription_schedule")),
        sa.CheckConstraint("ended_why IN ('failing', 'gone')", name=op.f("ck_event_subscription_ended_why")),
        sa.CheckConstraint("(ended_at IS NULL) = (ended_why IS NULL)", name=op.f("ck_event_subscription_ended")),
        sa.PrimaryKeyConstraint("subscription_id", name=op.f("pk_event_subscription")),
    )
    op.create_index("ix_event_subscription_brand_id_query_name", "event_subscription", ["brand_id", "query_name"])


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
