"""The code factory: runs and their chunks, ranges and acts of orders, packages."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "code_package",
        sa.Column("package_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("recipients", sa.Text(), nullable=False),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("ranges", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("by", sa.Text(), nullable=True),
        sa.CheckConstraint("bytes > 0", name=op.f("ck_code_package_bytes")),
        sa.CheckConstraint("items > 0", name=op.f("ck_code_package_items")),
        sa.ForeignKeyConstraint(["order_id"], ["code_order.order_id"], name=op.f("fk_code_package_order_id")),
        sa.PrimaryKeyConstraint("package_id", name=op.f("pk_code_package")),
        sa.UniqueConstraint("order_id", "name", name=op.f("uq_code_package_order_id_name")),
    )
    op.create_table(
        "export_run",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Integer(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("finished_at", Moment(), nullable=True),
        sa.Column("holder", sa.Uuid(), nullable=False),
        sa.Column("lease_until", Moment(), nullable=False),
        sa.Column("lease_hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("(state = 'finished') = (finished_at IS NOT NULL)", name=op.f("ck_export_run_finished")),
        sa.CheckConstraint("state IN ('running', 'stopped', 'finished')", name=op.f("ck_export_run_state")),
        sa.ForeignKeyConstraint(["order_id"], ["code_order.order_id"], name=op.f("fk_export_run_order_id")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_export_run")),
    )
    op.create_index(op.f("ix_export_run_order_id"), "export_run", ["order_id"], unique=False)

    op.create_table(
        "order_act",
        sa.Column("order_id", sa.Integer(), nullable=False),
        sa.Column("act_id", sa.Uuid(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.CheckConstraint("length(kind) BETWEEN 1 AND 40", name=op.f("ck_order_act_kind")),
        sa.ForeignKeyConstraint(["order_id"], ["code_order.order_id"], name=op.f("fk_order_act_order_id")),
        sa.PrimaryKeyConstraint("order_id", "act_id", name=op.f("pk_order_act")),
    )
    op.create_table(
        "order_range",
        sa.Column("order_id", sa.Integer(), nullable=False),
        sa.Column("layer", sa.Text(), nullable=False),
        sa.Column("first_index", sa.Integer(), nullable=False),
        sa.Column("last_index", sa.Integer(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "(layer = 'state' AND value IN ('active', 'voided')) OR (layer = 'allotment' AND length(value) BETWEEN 1 AND 60)",
            name=op.f("ck_order_range_value"),
        ),
        sa.CheckConstraint(
            "0 <= first_index AND first_index <= last_index AND last_index < 1000000000",
            name=op.f("ck_order_range_range"),
        ),
        sa.ForeignKeyConstraint(["order_id"], ["code_order.order_id"], name=op.f("fk_order_range_order_id")),
        sa.PrimaryKeyConstraint("order_id", "layer", "first_index", name=op.f("pk_order_range")),
    )
    op.create_table(
        "range_event",
        sa.Column("order_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("first_index", sa.Integer(), nullable=False),
        sa.Column("last_index", sa.Integer(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("recorded_at", Moment(), nullable=False),
        sa.Column("place", sa.Text(), nullable=True),
        sa.Column("by", sa.Text(), nullable=True),
        sa.CheckConstraint("step IN ('activated', 'voided')", name=op.f("ck_range_event_step")),
        sa.CheckConstraint("0 <= first_index AND first_index <= last_index", name=op.f("ck_range_event_range")),
        sa.ForeignKeyConstraint(["order_id"], ["code_order.order_id"], name=op.f("fk_range_event_order_id")),
        sa.PrimaryKeyConstraint("order_id", "step", "first_index", name=op.f("pk_range_event")),
    )
    op.create_table(
        "package_link",
        sa.Column("link_id", sa.Uuid(), nullable=False),
        sa.Column("package_id", sa.Uuid(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("fetches_max", sa.Integer(), nullable=False),
        sa.Column("fetches", sa.Integer(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("revoked_at", Moment(), nullable=True),
        sa.CheckConstraint("fetches BETWEEN 0 AND fetches_max", name=op.f("ck_package_link_fetches")),
        sa.CheckConstraint("fetches_max BETWEEN 1 AND 100", name=op.f("ck_package_link_fetches_max")),
        sa.ForeignKeyConstraint(["package_id"], ["code_package.package_id"], name=op.f("fk_package_link_package_id")),
        sa.PrimaryKeyConstraint("link_id", name=op.f("pk_package_link")),
        sa.UniqueConstraint("package_id", "secret_sha256", name=op.f("uq_package_link_package_id_secret_sha256")),
    )
    op.create_table(
        "run_chunk",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("face", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.Column("holder", sa.Uuid(), nullable=False),
        sa.Column("lease_until", Moment(), nullable=False),
        sa.Column("parts", sa.Text(), nullable=True),
        sa.CheckConstraint("face IN (1, 2)", name=op.f("ck_run_chunk_face")),
        sa.ForeignKeyConstraint(["run_id"], ["export_run.run_id"], name=op.f("fk_run_chunk_run_id")),
        sa.PrimaryKeyConstraint("run_id", "face", "number", name=op.f("pk_run_chunk")),
    )
    op.create_table(
        "package_fetch",
        sa.Column("package_id", sa.Uuid(), nullable=False),
        sa.Column("fetch_id", sa.Uuid(), nullable=False),
        sa.Column("link_id", sa.Uuid(), nullable=True),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("remote", sa.Text(), nullable=True),
        sa.CheckConstraint("(link_id IS NULL) = (outcome = 'unknown-secret')", name=op.f("ck_package_fetch_link")),
        sa.CheckConstraint(
            "outcome IN ('fetched', 'spent', 'expired', 'revoked', 'unknown-secret')",
            name=op.f("ck_package_fetch_outcome"),
        ),
        sa.ForeignKeyConstraint(["link_id"], ["package_link.link_id"], name=op.f("fk_package_fetch_link_id")),
        sa.ForeignKeyConstraint(["package_id"], ["code_package.package_id"], name=op.f("fk_package_fetch_package_id")),
        sa.PrimaryKeyConstraint("package_id", "fetch_id", name=op.f("pk_package_fetch")),
    )
    op.create_table(
        "package_report",
        sa.Column("package_id", sa.Uuid(), nullable=False),
        sa.Column("report_id", sa.Uuid(), nullable=False),
        sa.Column("link_id", sa.Uuid(), nullable=True),
        sa.Column("on_sale", sa.Text(), nullable=False),
        sa.Column("spoiled", sa.Text(), nullable=False),
        sa.Column("overprinted", sa.Text(), nullable=False),
        sa.Column("body_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("received_at", Moment(), nullable=False),
        sa.Column("decided_at", Moment(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.CheckConstraint("(state = 'received') = (decided_at IS NULL)", name=op.f("ck_package_report_decided")),
        sa.CheckConstraint("state IN ('received', 'accepted', 'rejected')", name=op.f("ck_package_report_state")),
        sa.ForeignKeyConstraint(["link_id"], ["package_link.link_id"], name=op.f("fk_package_report_link_id")),
        sa.ForeignKeyConstraint(["package_id"], ["code_package.package_id"], name=op.f("fk_package_report_package_id")),
        sa.PrimaryKeyConstraint("package_id", "report_id", name=op.f("pk_package_report")),
    )
    op.add_column("code_order", sa.Column("has_ranges", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    raise NotImplementedError("runs and packages would be lost; restore a backup from before the upgrade")
