"""Tiles are kept as they are: hashes and salted commitments are chance, and PostgreSQL tried to compress each for nothing."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _store("EXTERNAL")


def downgrade() -> None:
    _store("EXTENDED")


def _store(storage: str) -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE log_tile ALTER COLUMN content SET STORAGE {storage}")
