"""Subscriptions of regulators; marks of a thing, the lifted among them, by its name."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # SQLite alters no constraint: there the table is made anew.
    with op.batch_alter_table("event_subscription") as subscription:
        subscription.add_column(sa.Column("holder_id", sa.Uuid(), nullable=True))
        subscription.add_column(sa.Column("key_id", sa.Text(), nullable=True))
        subscription.add_column(sa.Column("query", sa.JSON(none_as_null=True), nullable=True))
        subscription.add_column(sa.Column("purpose", sa.Text(), nullable=True))
        subscription.drop_constraint(op.f("ck_event_subscription_ended_why"), type_="check")
        subscription.create_check_constraint(
            op.f("ck_event_subscription_ended_why"), "ended_why IN ('failing', 'gone', 'closed')"
        )
        subscription.create_check_constraint(
            op.f("ck_event_subscription_holder"), "(holder_id IS NULL) = (key_id IS NULL)"
        )
    op.create_index("ix_event_subscription_holder_id", "event_subscription", ["holder_id"])
    op.create_index("ix_life_mark_brand_id_subject", "life_mark", ["brand_id", "subject"])
