"""Fulfilment: orders of any kind with their steps, callbacks, statements and reconciliations; the outbox sets aside."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment
from loyalty.fulfilment import append_only_ddl

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _alter_outbox()
    _make_orders()
    _make_the_rest()
    _move_orders()
    op.drop_table("data_order")
    for statement in append_only_ddl(op.get_bind().dialect.name):
        op.execute(statement)


def _alter_outbox() -> None:
    op.drop_index("ix_outbox_due", "outbox")
    with op.batch_alter_table("outbox") as batch:
        batch.add_column(sa.Column("failures", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("set_aside_at", Moment(), nullable=True))
    with op.batch_alter_table("outbox") as batch:
        batch.alter_column("failures", server_default=None)
    op.create_index(
        "ix_outbox_due",
        "outbox",
        ["topic", "due_at"],
        unique=False,
        postgresql_where=sa.text("done_at IS NULL AND set_aside_at IS NULL"),
    )


def _make_orders() -> None:
    op.create_table(
        "fulfilment_order",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("item_key", sa.BigInteger(), nullable=True),
        sa.Column("refund_holder_id", sa.Uuid(), nullable=False),
        sa.Column("refund_purpose", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("provider_ref", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("attention", sa.Text(), nullable=True),
        sa.Column("replaces", sa.Uuid(), nullable=True),
        sa.Column("replaced_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("sent_at", Moment(), nullable=True),
        sa.Column("expires_at", Moment(), nullable=True),
        sa.Column("closed_at", Moment(), nullable=True),
        sa.CheckConstraint("kind IN ('mb', 'fen')", name=op.f("ck_fulfilment_order_kind")),
        sa.CheckConstraint(
            "state IN ('created', 'submitted', 'accepted', 'pending', 'unknown', 'await_user', 'completed', "
            "'reversed', 'failed')",
            name=op.f("ck_fulfilment_order_state"),
        ),
        sa.CheckConstraint("amount > 0", name=op.f("ck_fulfilment_order_amount")),
        sa.CheckConstraint(
            "(closed_at IS NULL) = (state NOT IN ('completed', 'reversed', 'failed'))",
            name=op.f("ck_fulfilment_order_closed"),
        ),
        sa.PrimaryKeyConstraint("member_id", "order_id", name=op.f("pk_fulfilment_order")),
    )
    op.create_index("ix_fulfilment_order_order_id", "fulfilment_order", ["order_id"])
    op.create_index(
        "ix_fulfilment_order_open",
        "fulfilment_order",
        ["provider", "state", "created_at"],
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "ix_fulfilment_order_attention",
        "fulfilment_order",
        ["attention"],
        postgresql_where=sa.text("attention IS NOT NULL"),
    )
    op.create_table(
        "fulfilment_step",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("from_state", sa.Text(), nullable=False),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=True),
        sa.Column("provider_ref", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("transfer_id", sa.Uuid(), nullable=True),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.CheckConstraint("by IN ('worker', 'callback', 'statement', 'operator')", name=op.f("ck_fulfilment_step_by")),
        sa.PrimaryKeyConstraint("member_id", "order_id", "seq", name=op.f("pk_fulfilment_step")),
    )
    op.create_index(
        "ix_fulfilment_step_day",
        "fulfilment_step",
        ["provider", "day"],
        postgresql_where=sa.text("transfer_id IS NOT NULL"),
    )


def _make_the_rest() -> None:
    op.create_table(
        "fulfilment_callback",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "event_id", name=op.f("pk_fulfilment_callback")),
    )
    op.create_index(op.f("ix_fulfilment_callback_at"), "fulfilment_callback", ["at"])
    op.create_table(
        "fulfilment_statement_line",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.CheckConstraint("kind IN ('completed', 'reversed')", name=op.f("ck_fulfilment_statement_line_kind")),
        sa.PrimaryKeyConstraint("provider", "day", "line", name=op.f("pk_fulfilment_statement_line")),
    )
    op.create_index(op.f("ix_fulfilment_statement_line_order_id"), "fulfilment_statement_line", ["order_id"])
    op.create_table(
        "reconciliation",
        sa.Column("reconciliation_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("lines", sa.BigInteger(), nullable=False),
        sa.Column("matched", sa.BigInteger(), nullable=False),
        sa.Column("repaired", sa.BigInteger(), nullable=False),
        sa.Column("statement_total", sa.BigInteger(), nullable=False),
        sa.Column("ledger_total", sa.BigInteger(), nullable=False),
        sa.Column("differences", sa.JSON(), nullable=False),
        sa.Column("sums", sa.JSON(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("reconciliation_id", name=op.f("pk_reconciliation")),
    )
    op.create_index(op.f("ix_reconciliation_day"), "reconciliation", ["day"])


def _move_orders() -> None:
    """The carrier had no numbers for its words yet: 0 lets any word count."""
    op.execute(
        "INSERT INTO fulfilment_order (member_id, order_id, kind, provider, amount, brand_id, item_key, "
        "refund_holder_id, refund_purpose, state, seq, revision, attempts, created_at, sent_at, closed_at) "
        "SELECT data_order.member_id, data_order.order_id, 'mb', 'carrier', data_order.megabytes, campaign.brand_id, "
        "data_order.item_key, data_order.budget_holder_id, 'budget', CASE data_order.state WHEN 'pending' THEN 'created' "
        "WHEN 'settled' THEN 'completed' ELSE data_order.state END, 0, 0, data_order.attempts, data_order.created_at, "
        "CASE WHEN data_order.state = 'pending' THEN NULL ELSE data_order.created_at END, data_order.settled_at "
        "FROM data_order JOIN campaign ON campaign.campaign_id = data_order.campaign_id"
    )
    op.execute("DELETE FROM outbox WHERE topic = 'data-order'")
    uuid_text = "CAST({} AS text)"
    payload = (
        "json_build_object('member_id', {0}, 'order_id', {1})"
        if op.get_bind().dialect.name == "postgresql"
        else "json_object('member_id', {0}, 'order_id', {1})"
    ).format(uuid_text.format("member_id"), uuid_text.format("order_id"))
    op.execute(
        "INSERT INTO outbox (item_key, message_id, topic, payload, attempts, failures, due_at) "  # noqa: S608 - no input
        f"SELECT item_key, order_id, 'order.carrier', {payload}, attempts, 0, created_at "
        "FROM fulfilment_order WHERE closed_at IS NULL"
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
