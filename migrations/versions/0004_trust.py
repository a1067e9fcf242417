"""Root documents, keys that sign documents, deltas of trust bundles."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "root_document",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("installed_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_root_document")),
    )
    op.create_table(
        "document_key",
        sa.Column("custody_name", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.Integer(), nullable=False),
        sa.Column("public", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("custody_name", name=op.f("pk_document_key")),
        sa.UniqueConstraint("public", name=op.f("uq_document_key_public")),
    )
    # Bundles of version 1 were never released; no reader of theirs is left, and the first of version 2 begins anew.
    op.execute(sa.text("DELETE FROM trust_bundle"))
    op.add_column("trust_bundle", sa.Column("delta", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
