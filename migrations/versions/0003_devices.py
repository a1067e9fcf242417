"""Devices: shop scanners, the codes that let them in, and the scans that they tell of."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "device",
        sa.Column("device_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("own_name", sa.Text(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("enrolled_at", Moment(), nullable=False),
        sa.Column("revoked_at", Moment(), nullable=True),
        sa.Column("last_sync_at", Moment(), nullable=True),
        sa.Column("told_at_s", sa.BigInteger(), nullable=True),
        sa.Column("bundle_seq", sa.BigInteger(), nullable=True),
        sa.Column("root_version", sa.BigInteger(), nullable=True),
        sa.Column("waiting", sa.BigInteger(), nullable=True),
        sa.Column("clock_offset_ms", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("length(public_key) = 32", name=op.f("ck_device_public_key")),
        sa.CheckConstraint("waiting >= 0", name=op.f("ck_device_waiting")),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_device")),
    )
    op.create_table(
        "device_invitation",
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("device_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("code_hash", name=op.f("pk_device_invitation")),
    )
    op.create_table(
        "device_scan",
        sa.Column("device_id", sa.Uuid(), nullable=False),
        sa.Column("journal", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("received_at", Moment(), nullable=False),
        sa.Column("scanned_at", Moment(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("elapsed_ms", sa.BigInteger(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("profile", sa.Integer(), nullable=True),
        sa.Column("kid", sa.Integer(), nullable=True),
        sa.Column("gtin", sa.Text(), nullable=True),
        sa.Column("serial", sa.Text(), nullable=True),
        sa.Column("bundle_seq", sa.BigInteger(), nullable=True),
        sa.Column("bundle_state", sa.Text(), nullable=True),
        sa.Column("clock_suspect", sa.Boolean(), nullable=False),
        sa.Column("refusal", sa.Text(), nullable=True),
        sa.Column("content_sha256", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("bundle_state IN ('fresh', 'stale', 'expired')", name=op.f("ck_device_scan_bundle_state")),
        sa.CheckConstraint("length(journal) = 16", name=op.f("ck_device_scan_journal")),
        sa.CheckConstraint("refusal IN ('OutOfScope', 'NeverIssued')", name=op.f("ck_device_scan_refusal")),
        sa.CheckConstraint("verdict IN ('genuine', 'ask', 'refused')", name=op.f("ck_device_scan_verdict")),
        sa.PrimaryKeyConstraint("device_id", "journal", "number", name=op.f("pk_device_scan")),
    )
    _let_devices_scan()


def _let_devices_scan() -> None:
    # In one go, because SQLite alters no constraint: there the table is made anew.
    with op.batch_alter_table("scan") as scan:
        scan.drop_constraint(op.f("ck_scan_channel"), type_="check")
        scan.create_check_constraint(op.f("ck_scan_channel"), "channel IN ('page', 'api', 'device')")


def downgrade() -> None:
    raise NotImplementedError("devices and their scans would be lost; restore a backup from before the upgrade")
