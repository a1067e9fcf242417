"""Captures in the background: how far they are, whose they are, and what they refused."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("epcis_capture") as capture:
        capture.alter_column("finished_at", existing_type=Moment(), nullable=True)
        capture.add_column(sa.Column("events", sa.Integer(), nullable=True))
        capture.add_column(sa.Column("position", sa.Integer(), nullable=False, server_default="0"))
        capture.add_column(sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"))
        capture.add_column(sa.Column("lease_until", Moment(), nullable=True))
    op.execute(
        "UPDATE epcis_capture SET events = accepted + duplicates + refused, position = accepted + duplicates + refused"
    )
    with op.batch_alter_table("epcis_capture") as capture:
        capture.alter_column("position", existing_type=sa.Integer(), server_default=None)
        capture.alter_column("attempts", existing_type=sa.Integer(), server_default=None)
    op.create_table(
        "capture_refusal",
        sa.Column("capture_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("pointer", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=True),
        sa.Column("hash_id", sa.Text(), nullable=True),
        sa.Column("problems", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("capture_id", "position", name=op.f("pk_capture_refusal")),
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
