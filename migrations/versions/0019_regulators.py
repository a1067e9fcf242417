"""Regulators: accounts and their keys, territory, looks, recall orders, tallies and exports; partners and shares."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment
from scan_api.regulators.append_only import statements

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_ROLES = "role IN ('brand', 'logistics', 'shop', 'crm', 'regulator', 'auditor', 'partner')"


def upgrade() -> None:
    # SQLite alters no constraint: there the table is made anew.
    with op.batch_alter_table("api_key") as api_key:
        api_key.drop_constraint(op.f("ck_api_key_role"), type_="check")
        api_key.create_check_constraint(op.f("ck_api_key_role"), _ROLES)
    op.create_table(
        "partner",
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("identifiers", sa.JSON(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("partner_id", name=op.f("pk_partner")),
    )
    op.create_table(
        "regulator_access",
        sa.Column("access_id", sa.Uuid(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("holder_id", sa.Uuid(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("filters", sa.JSON(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("told", sa.Integer(), nullable=False),
        sa.Column("kept_until", Moment(), nullable=False),
        sa.CheckConstraint("told >= 0", name=op.f("ck_regulator_access_told")),
        sa.PrimaryKeyConstraint("access_id", name=op.f("pk_regulator_access")),
    )
    op.create_index("ix_regulator_access_at", "regulator_access", ["at", "access_id"], unique=False)
    op.create_index(
        "ix_regulator_access_holder_id_at", "regulator_access", ["holder_id", "at", "access_id"], unique=False
    )
    op.create_index(op.f("ix_regulator_access_kept_until"), "regulator_access", ["kept_until"], unique=False)
    op.create_table(
        "regulator_access_brand",
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("access_id", sa.Uuid(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("kept_until", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("brand_id", "access_id", name=op.f("pk_regulator_access_brand")),
    )
    op.create_index(op.f("ix_regulator_access_brand_access_id"), "regulator_access_brand", ["access_id"], unique=False)
    op.create_table(
        "regulator_account",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("regions", sa.JSON(), nullable=False),
        sa.Column("categories", sa.JSON(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_regulator_account")),
    )
    op.create_table(
        "regulator_export",
        sa.Column("export_id", sa.Uuid(), nullable=False),
        sa.Column("holder_id", sa.Uuid(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("position", sa.Text(), nullable=True),
        sa.Column("brands", sa.JSON(), nullable=False),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.Uuid(), nullable=True),
        sa.Column("lease_until", Moment(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'finished', 'failed', 'gone')", name=op.f("ck_regulator_export_state")
        ),
        sa.PrimaryKeyConstraint("export_id", name=op.f("pk_regulator_export")),
    )
    op.create_index(
        "ix_regulator_export_holder_id_created_at",
        "regulator_export",
        ["holder_id", "created_at", "export_id"],
        unique=False,
    )
    op.create_table(
        "tally",
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("gtin", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('issued', 'activated', 'voided', 'recalled', 'scans', 'refused', 'suspected_fakes', 'suspected_copies', 'recall_orders')",
            name=op.f("ck_tally_kind"),
        ),
        sa.CheckConstraint("length(day) = 10", name=op.f("ck_tally_day")),
        sa.PrimaryKeyConstraint("brand_id", "day", "gtin", "region", "kind", name=op.f("pk_tally")),
    )
    op.create_table(
        "tally_source",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("upto", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("source", name=op.f("pk_tally_source")),
    )
    op.create_table(
        "account_key",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.CheckConstraint("created_at < expires_at", name=op.f("ck_account_key_expires")),
        sa.ForeignKeyConstraint(["key_id"], ["api_key.key_id"], name=op.f("fk_account_key_key_id")),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_account_key")),
    )
    op.create_index(op.f("ix_account_key_account_id"), "account_key", ["account_id"], unique=False)
    op.create_table(
        "regulator_export_part",
        sa.Column("export_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["export_id"], ["regulator_export.export_id"], name=op.f("fk_regulator_export_part_export_id")
        ),
        sa.PrimaryKeyConstraint("export_id", "number", name=op.f("pk_regulator_export_part")),
    )
    op.create_table(
        "brand_seat",
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("set_at", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["brand_id"], ["brand.brand_id"], name=op.f("fk_brand_seat_brand_id")),
        sa.PrimaryKeyConstraint("brand_id", "region", name=op.f("pk_brand_seat")),
    )
    op.create_table(
        "partner_share",
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("share_id", sa.Uuid(), nullable=False),
        sa.Column("gtins", sa.JSON(), nullable=False),
        sa.Column("types", sa.JSON(), nullable=False),
        sa.Column("since_time", Moment(), nullable=False),
        sa.Column("until_time", Moment(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("revoked_at", Moment(), nullable=True),
        sa.Column("revoked_by", sa.Text(), nullable=True),
        sa.CheckConstraint("until_time IS NULL OR since_time < until_time", name=op.f("ck_partner_share_times")),
        sa.ForeignKeyConstraint(["brand_id"], ["brand.brand_id"], name=op.f("fk_partner_share_brand_id")),
        sa.ForeignKeyConstraint(["partner_id"], ["partner.partner_id"], name=op.f("fk_partner_share_partner_id")),
        sa.PrimaryKeyConstraint("brand_id", "partner_id", "share_id", name=op.f("pk_partner_share")),
    )
    op.create_table(
        "place_region",
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("set_at", Moment(), nullable=False),
        sa.CheckConstraint("place <> ''", name=op.f("ck_place_region_place")),
        sa.ForeignKeyConstraint(["brand_id"], ["brand.brand_id"], name=op.f("fk_place_region_brand_id")),
        sa.PrimaryKeyConstraint("brand_id", "place", name=op.f("pk_place_region")),
    )
    op.create_index(op.f("ix_place_region_region"), "place_region", ["region"], unique=False)
    op.create_table(
        "recall_order",
        sa.Column("recall_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("holder_id", sa.Uuid(), nullable=False),
        sa.Column("authority", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("ordered_at", Moment(), nullable=False),
        sa.Column("deadline", Moment(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('item', 'lot', 'order', 'gtin', 'container')", name=op.f("ck_recall_order_kind")),
        sa.CheckConstraint(
            "state IN ('ordered', 'acknowledged', 'executed', 'reported', 'withdrawn')",
            name=op.f("ck_recall_order_state"),
        ),
        sa.CheckConstraint("ordered_at < deadline", name=op.f("ck_recall_order_deadline")),
        sa.ForeignKeyConstraint(["brand_id"], ["brand.brand_id"], name=op.f("fk_recall_order_brand_id")),
        sa.PrimaryKeyConstraint("recall_id", name=op.f("pk_recall_order")),
    )
    op.create_index(
        "ix_recall_order_brand_id_ordered_at", "recall_order", ["brand_id", "ordered_at", "recall_id"], unique=False
    )
    op.create_index(
        "ix_recall_order_holder_id_ordered_at", "recall_order", ["holder_id", "ordered_at", "recall_id"], unique=False
    )
    op.create_table(
        "product_category",
        sa.Column("gtin", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("set_at", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["gtin"], ["product.gtin"], name=op.f("fk_product_category_gtin")),
        sa.PrimaryKeyConstraint("gtin", "category", name=op.f("pk_product_category")),
    )
    op.create_table(
        "recall_step",
        sa.Column("recall_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('ordered', 'acknowledged', 'executed', 'reported', 'withdrawn')", name=op.f("ck_recall_step_kind")
        ),
        sa.ForeignKeyConstraint(["recall_id"], ["recall_order.recall_id"], name=op.f("fk_recall_step_recall_id")),
        sa.PrimaryKeyConstraint("recall_id", "kind", name=op.f("pk_recall_step")),
    )
    op.create_index("ix_device_scan_received_at", "device_scan", ["received_at"], unique=False, postgresql_using="brin")
    op.create_index("ix_order_act_at", "order_act", ["at"], unique=False)
    op.create_index("ix_scan_at", "scan", ["at"], unique=False, postgresql_using="brin")
    for statement in statements(op.get_bind().dialect.name):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
