"""The transparency log: records, what is pending, leaves, tiles, the head, and witnesses."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "log_entry",
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=True),
        sa.Column("record", sa.LargeBinary(), nullable=True),
        sa.Column("salt", sa.LargeBinary(), nullable=True),
        sa.Column("at", Moment(), nullable=False),
        sa.CheckConstraint("length(kind) BETWEEN 1 AND 40", name=op.f("ck_log_entry_kind")),
        sa.CheckConstraint("(record IS NULL) = (salt IS NULL)", name=op.f("ck_log_entry_opening")),
        sa.CheckConstraint("length(salt) = 32", name=op.f("ck_log_entry_salt")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_log_entry")),
    )
    op.create_index(op.f("ix_log_entry_subject"), "log_entry", ["subject"])
    op.create_table(
        "log_pending",
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("commitment", sa.LargeBinary(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.CheckConstraint("length(commitment) = 32", name=op.f("ck_log_pending_commitment")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_log_pending")),
    )
    op.create_table(
        "log_leaf",
        sa.Column("leaf_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("leaf_index", name=op.f("pk_log_leaf")),
        sa.UniqueConstraint("entry_id", name=op.f("uq_log_leaf_entry_id")),
    )
    op.create_table(
        "log_tile",
        sa.Column("level", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tile_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "tile_index", name=op.f("pk_log_tile")),
    )
    op.create_table(
        "log_head",
        sa.Column("log_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("custody_name", sa.Text(), nullable=False),
        sa.Column("public", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("grown_at", Moment(), nullable=False),
        sa.Column("signed_size", sa.BigInteger(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=True),
        sa.Column("published_size", sa.BigInteger(), nullable=False),
        sa.Column("published", sa.LargeBinary(), nullable=True),
        sa.Column("published_at", Moment(), nullable=True),
        sa.CheckConstraint("log_id = 1", name=op.f("ck_log_head_one")),
        sa.CheckConstraint(
            "-1 <= published_size AND published_size <= signed_size AND signed_size <= size",
            name=op.f("ck_log_head_sizes"),
        ),
        sa.PrimaryKeyConstraint("log_id", name=op.f("pk_log_head")),
    )
    op.create_table(
        "log_witness",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("verifier_key", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("added_at", Moment(), nullable=False),
        sa.Column("cosigned_size", sa.BigInteger(), nullable=False),
        sa.Column("cosigned_at", Moment(), nullable=True),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_log_witness")),
        sa.UniqueConstraint("verifier_key", name=op.f("uq_log_witness_verifier_key")),
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
