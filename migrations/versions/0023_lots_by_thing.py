"""Items of a lot by their names, so that those of one product are found among all that have a lot of that name."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_item_lot_lot", "item_lot")
    op.create_index("ix_item_lot_lot_thing", "item_lot", ["brand_id", "lot", "thing"])


def downgrade() -> None:
    op.drop_index("ix_item_lot_lot_thing", "item_lot")
    op.create_index("ix_item_lot_lot", "item_lot", ["brand_id", "lot"])
