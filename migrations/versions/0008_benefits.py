"""Benefits: catalogue and prices, what members hold and every step of it, pools of codes, tills, deliveries."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment
from loyalty.benefits import append_only_ddl

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("coupon")
    op.create_table(
        "benefit",
        sa.Column("benefit_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name_zh", sa.Text(), nullable=False),
        sa.Column("name_en", sa.Text(), nullable=False),
        sa.Column("text_zh", sa.Text(), nullable=False),
        sa.Column("text_en", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("value_fen", sa.BigInteger(), nullable=False),
        sa.Column("cost_fen", sa.BigInteger(), nullable=False),
        sa.Column("valid_days", sa.Integer(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=True),
        sa.Column("starts_at", Moment(), nullable=False),
        sa.Column("ends_at", Moment(), nullable=False),
        sa.Column("limit_total", sa.Integer(), nullable=True),
        sa.Column("limit_a_day", sa.Integer(), nullable=True),
        sa.Column("stackable", sa.Boolean(), nullable=False),
        sa.Column("stripes", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('points', 'data', 'coupon', 'pool', 'goods', 'cash')", name=op.f("ck_benefit_kind")
        ),
        sa.CheckConstraint("status IN ('active', 'paused')", name=op.f("ck_benefit_status")),
        sa.CheckConstraint("amount > 0", name=op.f("ck_benefit_amount")),
        sa.CheckConstraint("cost_fen BETWEEN 0 AND 5000000", name=op.f("ck_benefit_cost_fen")),
        sa.CheckConstraint("limit_a_day IS NULL OR limit_a_day > 0", name=op.f("ck_benefit_limit_a_day")),
        sa.CheckConstraint("limit_total IS NULL OR limit_total > 0", name=op.f("ck_benefit_limit_total")),
        sa.CheckConstraint("starts_at < ends_at", name=op.f("ck_benefit_period")),
        sa.CheckConstraint("stripes BETWEEN 1 AND 64", name=op.f("ck_benefit_stripes")),
        sa.CheckConstraint("valid_days BETWEEN 0 AND 1095", name=op.f("ck_benefit_valid_days")),
        sa.CheckConstraint("value_fen BETWEEN 0 AND 5000000", name=op.f("ck_benefit_value_fen")),
        sa.PrimaryKeyConstraint("benefit_id", name=op.f("pk_benefit")),
    )
    op.create_index(op.f("ix_benefit_brand_id"), "benefit", ["brand_id"], unique=False)
    op.create_table(
        "benefit_price",
        sa.Column("benefit_id", sa.Uuid(), nullable=False),
        sa.Column("tier_rank", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("points BETWEEN 0 AND 10000000", name=op.f("ck_benefit_price_points")),
        sa.CheckConstraint("tier_rank BETWEEN 0 AND 20", name=op.f("ck_benefit_price_tier_rank")),
        sa.PrimaryKeyConstraint("benefit_id", "tier_rank", name=op.f("pk_benefit_price")),
    )
    op.create_table(
        "member_benefit",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("held_id", sa.Uuid(), nullable=False),
        sa.Column("benefit_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("text_zh", sa.Text(), nullable=False),
        sa.Column("text_en", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("value_fen", sa.BigInteger(), nullable=False),
        sa.Column("points_paid", sa.BigInteger(), nullable=False),
        sa.Column("paid_by", sa.Uuid(), nullable=True),
        sa.Column("stackable", sa.Boolean(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("code_fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("code_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("issued_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=True),
        sa.Column("shown_at", Moment(), nullable=True),
        sa.Column("redeemed_at", Moment(), nullable=True),
        sa.Column("redeemed_by", sa.Uuid(), nullable=True),
        sa.Column("reserved_until", Moment(), nullable=True),
        sa.Column("basket_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "(status = 'redeemed') = (redeemed_at IS NOT NULL)", name=op.f("ck_member_benefit_redeemed_at")
        ),
        sa.CheckConstraint(
            "status IN ('issued', 'claimed', 'reserved', 'redeemed', 'expired', 'reversed')",
            name=op.f("ck_member_benefit_status"),
        ),
        sa.CheckConstraint("(code_sealed IS NULL) = (code_fingerprint IS NULL)", name=op.f("ck_member_benefit_code")),
        sa.CheckConstraint(
            "value_fen >= 0 AND points_paid >= 0 AND amount > 0", name=op.f("ck_member_benefit_amounts")
        ),
        sa.PrimaryKeyConstraint("member_id", "held_id", name=op.f("pk_member_benefit")),
    )
    op.create_index("ix_member_benefit_benefit_id", "member_benefit", ["benefit_id"], unique=False)
    op.create_index("ix_member_benefit_code_fingerprint", "member_benefit", ["code_fingerprint"], unique=False)
    op.create_index(
        "ix_member_benefit_expiry",
        "member_benefit",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('issued', 'claimed', 'reserved') AND expires_at IS NOT NULL"),
        sqlite_where=sa.text("status IN ('issued', 'claimed', 'reserved') AND expires_at IS NOT NULL"),
    )
    op.create_index(
        "ix_member_benefit_reserved",
        "member_benefit",
        ["reserved_until"],
        unique=False,
        postgresql_where=sa.text("reserved_until IS NOT NULL"),
        sqlite_where=sa.text("reserved_until IS NOT NULL"),
    )
    op.create_table(
        "benefit_step",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("held_id", sa.Uuid(), nullable=False),
        sa.Column("turn", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("benefit_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("recorded_at", Moment(), nullable=False),
        sa.Column("by", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "step IN ('issued', 'claimed', 'reserved', 'released', 'redeemed', 'rolled_back', 'expired', 'reversed')",
            name=op.f("ck_benefit_step_step"),
        ),
        sa.PrimaryKeyConstraint("member_id", "held_id", "turn", name=op.f("pk_benefit_step")),
    )
    op.create_index("ix_benefit_step_benefit_id_step_at", "benefit_step", ["benefit_id", "step", "at"], unique=False)
    op.create_table(
        "benefit_taken",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("benefit_id", sa.Uuid(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("on_day", sa.Integer(), nullable=False),
        sa.CheckConstraint("total >= 0 AND on_day >= 0", name=op.f("ck_benefit_taken_counts")),
        sa.PrimaryKeyConstraint("member_id", "benefit_id", name=op.f("pk_benefit_taken")),
    )
    op.create_table(
        "pool_file",
        sa.Column("benefit_id", sa.Uuid(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("lines", sa.BigInteger(), nullable=False),
        sa.Column("added", sa.BigInteger(), nullable=False),
        sa.Column("duplicates", sa.BigInteger(), nullable=False),
        sa.Column("refused", sa.BigInteger(), nullable=False),
        sa.Column("started_at", Moment(), nullable=False),
        sa.Column("finished_at", Moment(), nullable=True),
        sa.CheckConstraint("added + duplicates + refused <= lines", name=op.f("ck_pool_file_lines")),
        sa.PrimaryKeyConstraint("benefit_id", "file_id", name=op.f("pk_pool_file")),
    )
    op.create_table(
        "pool_code",
        sa.Column("benefit_id", sa.Uuid(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=True),
        sa.Column("held_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint("(held_id IS NULL) = (member_id IS NULL)", name=op.f("ck_pool_code_dealt")),
        sa.PrimaryKeyConstraint("benefit_id", "fingerprint", name=op.f("pk_pool_code")),
    )
    op.create_index(
        "ix_pool_code_undealt",
        "pool_code",
        ["benefit_id", "shard"],
        unique=False,
        postgresql_where=sa.text("held_id IS NULL"),
        sqlite_where=sa.text("held_id IS NULL"),
    )
    op.create_table(
        "benefit_delivery",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("held_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("address_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("carrier", sa.Text(), nullable=True),
        sa.Column("tracking", sa.Text(), nullable=True),
        sa.Column("ordered_at", Moment(), nullable=False),
        sa.Column("shipped_at", Moment(), nullable=True),
        sa.Column("delivered_at", Moment(), nullable=True),
        sa.Column("returned_at", Moment(), nullable=True),
        sa.CheckConstraint(
            "state IN ('ordered', 'shipped', 'delivered', 'returned')", name=op.f("ck_benefit_delivery_state")
        ),
        sa.PrimaryKeyConstraint("member_id", "held_id", name=op.f("pk_benefit_delivery")),
    )
    op.create_index(
        "ix_benefit_delivery_brand_id_ordered_at",
        "benefit_delivery",
        ["brand_id", "ordered_at", "held_id"],
        unique=False,
    )
    op.create_index("ix_benefit_delivery_held_id", "benefit_delivery", ["held_id"], unique=False)
    op.create_table(
        "shop_redemption",
        sa.Column("shop_id", sa.Uuid(), nullable=False),
        sa.Column("redemption_id", sa.Uuid(), nullable=False),
        sa.Column("code_fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=True),
        sa.Column("held_id", sa.Uuid(), nullable=True),
        sa.Column("benefit_id", sa.Uuid(), nullable=True),
        sa.Column("brand_id", sa.Integer(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("offline", sa.Boolean(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("recorded_at", Moment(), nullable=False),
        sa.Column("rolled_back_at", Moment(), nullable=True),
        sa.CheckConstraint(
            "(outcome = 'rolled_back') = (rolled_back_at IS NOT NULL)", name=op.f("ck_shop_redemption_rolled_back")
        ),
        sa.CheckConstraint(
            "outcome IN ('redeemed', 'rolled_back', 'already_redeemed', 'expired', 'not_yet_issued', 'reversed', 'unknown', 'too_late', 'time_refused')",
            name=op.f("ck_shop_redemption_outcome"),
        ),
        sa.PrimaryKeyConstraint("shop_id", "redemption_id", name=op.f("pk_shop_redemption")),
    )
    op.create_index("ix_shop_redemption_benefit_id", "shop_redemption", ["benefit_id"], unique=False)
    op.create_index(
        "ix_shop_redemption_conflict",
        "shop_redemption",
        ["brand_id", "recorded_at", "redemption_id"],
        unique=False,
        postgresql_where=sa.text("outcome NOT IN ('redeemed', 'rolled_back')"),
        sqlite_where=sa.text("outcome NOT IN ('redeemed', 'rolled_back')"),
    )
    op.create_table(
        "till_basket",
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("basket_id", sa.Uuid(), nullable=False),
        sa.Column("coupons", sa.Integer(), nullable=False),
        sa.Column("alone", sa.Boolean(), nullable=False),
        sa.Column("touched_at", Moment(), nullable=False),
        sa.CheckConstraint("coupons BETWEEN 0 AND 10", name=op.f("ck_till_basket_coupons")),
        sa.PrimaryKeyConstraint("brand_id", "basket_id", name=op.f("pk_till_basket")),
    )
    op.create_index(op.f("ix_till_basket_touched_at"), "till_basket", ["touched_at"], unique=False)
    for statement in append_only_ddl(op.get_bind().dialect.name):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("what members hold would be lost; restore a backup from before the upgrade")
