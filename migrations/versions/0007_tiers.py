"""Tiers: rules and experience, and where each card stands; purchases, what they earned, and their refunds."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment
from loyalty.experience import APPEND_ONLY_TABLES, append_only_ddl

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _extend_cards()
    _make_tables()
    for statement in append_only_ddl(op.get_bind().dialect.name, APPEND_ONLY_TABLES):
        op.execute(statement)


def _extend_cards() -> None:
    with op.batch_alter_table("card") as card:
        card.add_column(sa.Column("tier_rank", sa.Integer(), server_default="0", nullable=False))
        card.add_column(sa.Column("tier_since", Moment(), nullable=True))
        card.add_column(sa.Column("tier_until", Moment(), nullable=True))
        card.add_column(sa.Column("granted_rank", sa.Integer(), server_default="0", nullable=False))
        card.add_column(sa.Column("granted_until", Moment(), nullable=True))
        card.add_column(sa.Column("tier_moment", Moment(), nullable=True))
        card.add_column(sa.Column("tier_seq", sa.Integer(), server_default="0", nullable=False))
        card.add_column(sa.Column("tier_changes", sa.Integer(), server_default="0", nullable=False))
        card.add_column(sa.Column("tier_version", sa.Integer(), server_default="0", nullable=False))
        card.add_column(sa.Column("tier_check_at", Moment(), nullable=True))
        card.create_check_constraint(op.f("ck_card_tier"), "tier_rank >= 0 AND granted_rank >= 0 AND tier_seq >= 0")
    op.create_index(op.f("ix_card_card_number"), "card", ["card_number"])
    due, decided = sa.text("tier_check_at IS NOT NULL"), sa.text("tier_seq > 0")
    op.create_index("ix_card_tier_check_at", "card", ["tier_check_at"], postgresql_where=due, sqlite_where=due)
    op.create_index(
        "ix_card_tier_version", "card", ["brand_id", "tier_version"], postgresql_where=decided, sqlite_where=decided
    )


def _make_tables() -> None:
    op.create_table(
        "tier_rules",
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("valid_from", Moment(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("window_months", sa.Integer(), nullable=False),
        sa.Column("keep_permille", sa.Integer(), nullable=False),
        sa.Column("period_months", sa.Integer(), nullable=False),
        sa.Column("grace_days", sa.Integer(), nullable=False),
        sa.Column("purchase_fen_min", sa.BigInteger(), nullable=False),
        sa.Column("experience_per_purchase", sa.Integer(), nullable=False),
        sa.Column("experience_per_yuan", sa.Integer(), nullable=False),
        sa.Column("ladder", sa.JSON(), nullable=False),
        sa.CheckConstraint(
            "experience_per_purchase BETWEEN 0 AND 10000 AND experience_per_yuan BETWEEN 0 AND 10000",
            name=op.f("ck_tier_rules_experience"),
        ),
        sa.CheckConstraint("grace_days BETWEEN 0 AND 366", name=op.f("ck_tier_rules_grace_days")),
        sa.CheckConstraint("keep_permille BETWEEN 1 AND 1000", name=op.f("ck_tier_rules_keep_permille")),
        sa.CheckConstraint("period_months IN (1, 3, 6, 12)", name=op.f("ck_tier_rules_period_months")),
        sa.CheckConstraint("purchase_fen_min >= 0", name=op.f("ck_tier_rules_purchase_fen_min")),
        sa.CheckConstraint("version > 0", name=op.f("ck_tier_rules_version")),
        sa.CheckConstraint("window_months BETWEEN 1 AND 60", name=op.f("ck_tier_rules_window_months")),
        sa.PrimaryKeyConstraint("brand_id", "version", name=op.f("pk_tier_rules")),
    )
    op.create_table(
        "earn_rule",
        sa.Column("rule_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("points_per_yuan_milli", sa.Integer(), nullable=False),
        sa.Column("paid_fen_min", sa.BigInteger(), nullable=False),
        sa.Column("points_per_purchase_max", sa.Integer(), nullable=True),
        sa.Column("points_per_day_max", sa.Integer(), nullable=True),
        sa.Column("tier_permille", sa.JSON(), nullable=False),
        sa.Column("gtin_prefix", sa.Text(), nullable=False),
        sa.Column("starts_at", Moment(), nullable=False),
        sa.Column("ends_at", Moment(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.CheckConstraint("ends_at > starts_at", name=op.f("ck_earn_rule_period")),
        sa.CheckConstraint("length(gtin_prefix) <= 14", name=op.f("ck_earn_rule_gtin_prefix")),
        sa.CheckConstraint("paid_fen_min BETWEEN 0 AND 1000000000", name=op.f("ck_earn_rule_paid_fen_min")),
        sa.CheckConstraint(
            "points_per_purchase_max BETWEEN 1 AND 1000000 AND points_per_day_max BETWEEN 1 AND 1000000",
            name=op.f("ck_earn_rule_caps"),
        ),
        sa.CheckConstraint("points_per_yuan_milli BETWEEN 1 AND 100000", name=op.f("ck_earn_rule_rate")),
        sa.PrimaryKeyConstraint("rule_id", name=op.f("pk_earn_rule")),
    )
    op.create_index(op.f("ix_earn_rule_brand_id"), "earn_rule", ["brand_id"], unique=False)
    op.create_table(
        "experience_entry",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("purchases", sa.BigInteger(), nullable=False),
        sa.Column("fen", sa.BigInteger(), nullable=False),
        sa.Column("experience", sa.BigInteger(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("recorded_at", Moment(), nullable=False),
        sa.Column("rules_version", sa.Integer(), nullable=False),
        sa.Column("of_entry", sa.Uuid(), nullable=True),
        sa.Column("origin_id", sa.Uuid(), nullable=True),
        sa.Column("grant_rank", sa.Integer(), server_default="0", nullable=False),
        sa.Column("granted_until", Moment(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('purchase', 'refund', 'imported', 'granted', 'adjusted', 'merged')",
            name=op.f("ck_experience_entry_kind"),
        ),
        sa.CheckConstraint(
            "abs(purchases) <= 1000000000000 AND abs(fen) <= 1000000000000 AND abs(experience) <= 1000000000000",
            name=op.f("ck_experience_entry_figures"),
        ),
        sa.CheckConstraint(
            "grant_rank > 0 AND granted_until IS NOT NULL OR grant_rank = 0",
            name=op.f("ck_experience_entry_grant_rank"),
        ),
        sa.CheckConstraint("seq > 0", name=op.f("ck_experience_entry_seq")),
        sa.PrimaryKeyConstraint("member_id", "entry_id", "kind", name=op.f("pk_experience_entry")),
        sa.UniqueConstraint("member_id", "brand_id", "seq", name=op.f("uq_experience_entry_member_id_brand_id_seq")),
    )
    op.create_table(
        "tier_change",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("from_rank", sa.Integer(), nullable=False),
        sa.Column("to_rank", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("purchases", sa.BigInteger(), nullable=False),
        sa.Column("fen", sa.BigInteger(), nullable=False),
        sa.Column("experience", sa.BigInteger(), nullable=False),
        sa.Column("until", Moment(), nullable=True),
        sa.CheckConstraint(
            "reason IN ('earned', 'granted', 'rules', 'warned', 'kept', 'lowered', 'lapsed', 'refunded')",
            name=op.f("ck_tier_change_reason"),
        ),
        sa.CheckConstraint("number > 0 AND from_rank >= 0 AND to_rank >= 0", name=op.f("ck_tier_change_ranks")),
        sa.PrimaryKeyConstraint("member_id", "brand_id", "number", name=op.f("pk_tier_change")),
    )
    op.create_table(
        "receipt",
        sa.Column("purchase_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("purchase_id", name=op.f("pk_receipt")),
    )
    op.create_table(
        "purchase",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("purchase_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("receipt", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("paid_fen", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("rules_version", sa.Integer(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("recorded_at", Moment(), nullable=False),
        sa.Column("refunded_fen", sa.BigInteger(), nullable=False),
        sa.Column("points_back", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("channel IN ('store', 'online')", name=op.f("ck_purchase_channel")),
        sa.CheckConstraint("paid_fen BETWEEN 1 AND 1000000000", name=op.f("ck_purchase_paid_fen")),
        sa.CheckConstraint("points >= 0 AND points_back BETWEEN 0 AND points", name=op.f("ck_purchase_points")),
        sa.CheckConstraint("refunded_fen BETWEEN 0 AND paid_fen", name=op.f("ck_purchase_refunded_fen")),
        sa.PrimaryKeyConstraint("member_id", "purchase_id", name=op.f("pk_purchase")),
    )
    op.create_table(
        "purchase_part",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("purchase_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("gtin", sa.Text(), nullable=True),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("fen", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("refunded_fen", sa.BigInteger(), nullable=False),
        sa.Column("refunded_quantity", sa.Integer(), nullable=False),
        sa.Column("points_back", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("fen >= 0 AND refunded_fen BETWEEN 0 AND fen", name=op.f("ck_purchase_part_fen")),
        sa.CheckConstraint("points >= 0 AND points_back BETWEEN 0 AND points", name=op.f("ck_purchase_part_points")),
        sa.CheckConstraint(
            "quantity >= 0 AND refunded_quantity BETWEEN 0 AND quantity", name=op.f("ck_purchase_part_quantity")
        ),
        sa.PrimaryKeyConstraint("member_id", "purchase_id", "number", name=op.f("pk_purchase_part")),
    )
    op.create_table(
        "points_owed",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("points >= 0", name=op.f("ck_points_owed_points")),
        sa.PrimaryKeyConstraint("member_id", name=op.f("pk_points_owed")),
    )
    op.create_table(
        "earned_today",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("rule_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("units > 0", name=op.f("ck_earned_today_units")),
        sa.PrimaryKeyConstraint("member_id", "rule_id", "day", name=op.f("pk_earned_today")),
    )
    op.create_table(
        "refund",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("refund_id", sa.Uuid(), nullable=False),
        sa.Column("purchase_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("fen", sa.BigInteger(), nullable=False),
        sa.Column("parts", sa.JSON(), nullable=False),
        sa.Column("points_taken", sa.BigInteger(), nullable=False),
        sa.Column("points_short", sa.BigInteger(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.CheckConstraint("fen > 0", name=op.f("ck_refund_fen")),
        sa.CheckConstraint("points_taken >= 0 AND points_short >= 0", name=op.f("ck_refund_points")),
        sa.PrimaryKeyConstraint("member_id", "refund_id", name=op.f("pk_refund")),
    )


def downgrade() -> None:
    raise NotImplementedError("purchases and the history of tiers would be lost; restore a backup instead")
