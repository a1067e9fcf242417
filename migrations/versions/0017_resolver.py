"""The links of brands, to which the resolver leads."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "resolver_link",
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("link_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("company_digits", sa.Text(), nullable=False),
        sa.Column("link_type", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("href", sa.Text(), nullable=False),
        sa.Column("languages", sa.JSON(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=True),
        sa.Column("contexts", sa.JSON(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("valid_from", Moment(), nullable=True),
        sa.Column("valid_until", Moment(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.CheckConstraint("role IN ('plain', 'default', 'variant')", name=op.f("ck_resolver_link_role")),
        sa.CheckConstraint("valid_from < valid_until", name=op.f("ck_resolver_link_times")),
        sa.ForeignKeyConstraint(["brand_id"], ["brand.brand_id"], name=op.f("fk_resolver_link_brand_id")),
        sa.PrimaryKeyConstraint("brand_id", "link_id", name=op.f("pk_resolver_link")),
    )
    op.create_index("ix_resolver_link_key_level", "resolver_link", ["key", "level"])
    op.create_index("ix_resolver_link_brand_id_created_at", "resolver_link", ["brand_id", "created_at", "link_id"])


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
