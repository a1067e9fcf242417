"""The API: webhooks, sandboxes, API keys of CRM systems and of sandboxes."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _webhooks()
    op.create_table(
        "sandbox_group",
        sa.Column("group_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("retired_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("group_id", name=op.f("pk_sandbox_group")),
    )
    # In one go, because SQLite alters no constraint: there the table is made anew.
    with op.batch_alter_table("api_key") as api_key:
        api_key.add_column(sa.Column("sandbox", sa.Boolean(), nullable=False, server_default=sa.false()))
        api_key.drop_constraint(op.f("ck_api_key_role"), type_="check")
        api_key.create_check_constraint(
            op.f("ck_api_key_role"), "role IN ('brand', 'logistics', 'shop', 'crm', 'regulator')"
        )
    with op.batch_alter_table("api_key") as api_key:
        api_key.alter_column("sandbox", server_default=None)


def _webhooks() -> None:
    op.create_table(
        "webhook_endpoint",
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("brand_slug", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("kinds", sa.JSON(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("secret_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("previous_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("previous_until", Moment(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", Moment(), nullable=True),
        sa.Column("disabled_at", Moment(), nullable=True),
        sa.Column("disabled_why", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "disabled_why IN ('by hand', 'failing', 'gone')", name=op.f("ck_webhook_endpoint_disabled_why")
        ),
        sa.CheckConstraint("(disabled_at IS NULL) = (disabled_why IS NULL)", name=op.f("ck_webhook_endpoint_disabled")),
        sa.CheckConstraint(
            "(previous_sealed IS NULL) = (previous_until IS NULL)", name=op.f("ck_webhook_endpoint_previous")
        ),
        sa.CheckConstraint("failures >= 0", name=op.f("ck_webhook_endpoint_failures")),
        sa.PrimaryKeyConstraint("endpoint_id", name=op.f("pk_webhook_endpoint")),
    )
    op.create_index(op.f("ix_webhook_endpoint_brand_id"), "webhook_endpoint", ["brand_id"])
    op.create_table(
        "webhook_delivery",
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_attempt_at", Moment(), nullable=False),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("next_attempt_at", Moment(), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'delivered', 'given_up')", name=op.f("ck_webhook_delivery_state")),
        sa.CheckConstraint("last_status BETWEEN 100 AND 999", name=op.f("ck_webhook_delivery_last_status")),
        sa.PrimaryKeyConstraint("endpoint_id", "event_id", name=op.f("pk_webhook_delivery")),
    )
    op.create_index("ix_webhook_delivery_newest", "webhook_delivery", ["endpoint_id", "at", "event_id"])


def downgrade() -> None:
    raise NotImplementedError("webhooks and sandboxes would be lost; restore a backup from before the upgrade")
