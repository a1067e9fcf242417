"""Campaigns with several prizes and more limits; claims tell which prize they gave."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_KEPT = (
    *("campaign_id", "brand_id", "group_id", "title_zh", "title_en", "face", "gtin", "stripes", "starts_at"),
    *("ends_at", "status", "created_at"),
)
_LIMITS = ("member_limit", "member_day_limit", "device_day_limit", "place_day_limit")


def upgrade() -> None:
    # Campaigns are few: their table is made anew, since SQLite cannot take columns out of a table with checks.
    before = op.get_bind().execute(sa.text("SELECT * FROM campaign")).mappings().all()
    op.drop_table("campaign")
    _make_campaign()
    _make_campaign_prize()
    for row in before:
        _insert("campaign", {name: row[name] for name in _KEPT} | {"member_limit": row["per_member_limit"]})
        coupon = row["prize_kind"] == "coupon"
        given = {
            "campaign_id": row["campaign_id"],
            "number": 0,
            "kind": "benefit" if coupon else row["prize_kind"],
            "amount": row["prize_amount"],
            "weight": 1,
            "budget": row["budget"],
            # Migration 0008 made a benefit of each campaign's coupon, under the campaign's id.
            "benefit_id": row["campaign_id"] if coupon else None,
        }
        _insert("campaign_prize", given)
    op.add_column("claim", sa.Column("prize_number", sa.Integer(), server_default="0", nullable=False))
    op.add_column("claim", sa.Column("drawn_number", sa.Integer(), server_default="0", nullable=False))
    op.create_table(
        "claim_count",
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.CheckConstraint("claims > 0", name=op.f("ck_claim_count_claims")),
        sa.PrimaryKeyConstraint("subject_id", "campaign_id", "day", name=op.f("pk_claim_count")),
    )
    op.execute(
        "INSERT INTO claim_count (subject_id, campaign_id, day, claims) "
        "SELECT member_id, campaign_id, 0, claims FROM member_campaign WHERE claims > 0"
    )
    op.drop_table("member_campaign")


def _insert(table: str, row: dict[str, object]) -> None:
    # Values as the driver gave them: the columns have no types here that could change them.
    op.get_bind().execute(sa.insert(sa.table(table, *(sa.column(name) for name in row))), row)


def _make_campaign() -> None:
    op.create_table(
        "campaign",
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("title_zh", sa.Text(), nullable=False),
        sa.Column("title_en", sa.Text(), nullable=False),
        sa.Column("face", sa.Integer(), nullable=False),
        sa.Column("gtin", sa.Text(), nullable=True),
        sa.Column("stripes", sa.Integer(), nullable=False),
        sa.Column("starts_at", Moment(), nullable=False),
        sa.Column("ends_at", Moment(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=True) for name in _LIMITS),
        sa.Column("seed_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("commitment", sa.LargeBinary(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("revealed_at", Moment(), nullable=True),
        sa.CheckConstraint("face IN (1, 2)", name=op.f("ck_campaign_face")),
        sa.CheckConstraint("stripes BETWEEN 1 AND 64", name=op.f("ck_campaign_stripes")),
        sa.CheckConstraint("starts_at < ends_at", name=op.f("ck_campaign_period")),
        sa.CheckConstraint(
            " AND ".join(f"({name} IS NULL OR {name} > 0)" for name in _LIMITS), name=op.f("ck_campaign_limits")
        ),
        sa.CheckConstraint("(seed_sealed IS NULL) = (commitment IS NULL)", name=op.f("ck_campaign_draw")),
        sa.CheckConstraint("status IN ('active', 'paused')", name=op.f("ck_campaign_status")),
        sa.PrimaryKeyConstraint("campaign_id", name=op.f("pk_campaign")),
    )
    op.create_index(op.f("ix_campaign_brand_id"), "campaign", ["brand_id"], unique=False)


def _make_campaign_prize() -> None:
    op.create_table(
        "campaign_prize",
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("weight", sa.BigInteger(), nullable=False),
        sa.Column("budget", sa.BigInteger(), nullable=False),
        sa.Column("benefit_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('points', 'mb', 'fen', 'benefit', 'nothing')", name=op.f("ck_campaign_prize_kind")
        ),
        sa.CheckConstraint("weight BETWEEN 1 AND 1000000000", name=op.f("ck_campaign_prize_weight")),
        sa.CheckConstraint("(kind = 'benefit') = (benefit_id IS NOT NULL)", name=op.f("ck_campaign_prize_benefit")),
        sa.CheckConstraint(
            "(kind = 'nothing' AND amount = 0 AND budget = 0) OR (amount > 0 AND budget > 0 AND budget % amount = 0)",
            name=op.f("ck_campaign_prize_budget"),
        ),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.campaign_id"], name=op.f("fk_campaign_prize_campaign_id")),
        sa.PrimaryKeyConstraint("campaign_id", "number", name=op.f("pk_campaign_prize")),
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
