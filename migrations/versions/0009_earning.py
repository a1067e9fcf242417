"""Earning: programs, check-ins, tasks, referrals, red packets, birthdays, and draws that can be recomputed."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _programs()
    _check_ins_tasks_and_birthdays()
    _referrals()
    _red_packets()
    _draws()
    _draw_plays()


def _programs() -> None:
    op.create_table(
        "earning_program",
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("title_zh", sa.Text(), nullable=False),
        sa.Column("title_en", sa.Text(), nullable=False),
        sa.Column("rules", sa.JSON(), nullable=False),
        sa.Column("cards_only", sa.Boolean(), nullable=False),
        sa.Column("budget", sa.BigInteger(), nullable=True),
        sa.Column("stripes", sa.Integer(), nullable=False),
        sa.Column("starts_at", Moment(), nullable=False),
        sa.Column("ends_at", Moment(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.CheckConstraint("budget IS NULL OR budget BETWEEN 1 AND 1000000000", name=op.f("ck_earning_program_budget")),
        sa.CheckConstraint(
            "kind IN ('check_in', 'task', 'referral', 'packet', 'birthday')", name=op.f("ck_earning_program_kind")
        ),
        sa.CheckConstraint("ends_at IS NULL OR starts_at < ends_at", name=op.f("ck_earning_program_period")),
        sa.CheckConstraint("status IN ('active', 'paused')", name=op.f("ck_earning_program_status")),
        sa.CheckConstraint("stripes BETWEEN 1 AND 64", name=op.f("ck_earning_program_stripes")),
        sa.PrimaryKeyConstraint("program_id", name=op.f("pk_earning_program")),
    )
    op.create_index("ix_earning_program_brand_id_kind_event", "earning_program", ["brand_id", "kind", "event"])
    op.create_table(
        "earning_allowance",
        sa.Column("holder_id", sa.Uuid(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.CheckConstraint("used > 0", name=op.f("ck_earning_allowance_used")),
        sa.PrimaryKeyConstraint("holder_id", "subject_id", "period", name=op.f("pk_earning_allowance")),
    )


def _check_ins_tasks_and_birthdays() -> None:
    op.create_table(
        "check_in",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("streak", sa.Integer(), nullable=False),
        sa.Column("points", sa.Integer(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.CheckConstraint("streak > 0 AND points > 0", name=op.f("ck_check_in_numbers")),
        sa.PrimaryKeyConstraint("member_id", "program_id", "day", name=op.f("pk_check_in")),
    )
    op.create_table(
        "check_in_streak",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("last_day", sa.Date(), nullable=False),
        sa.Column("streak", sa.Integer(), nullable=False),
        sa.Column("longest", sa.Integer(), nullable=False),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "streak > 0 AND longest >= streak AND days >= longest", name=op.f("ck_check_in_streak_numbers")
        ),
        sa.PrimaryKeyConstraint("member_id", "program_id", name=op.f("pk_check_in_streak")),
    )
    op.create_table(
        "task_completion",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("member_id", "program_id", "period", name=op.f("pk_task_completion")),
        sa.UniqueConstraint(
            "member_id", "program_id", "subject_id", name=op.f("uq_task_completion_member_id_program_id_subject_id")
        ),
    )
    op.create_table(
        "birthday_gift",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("year", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("member_id", "program_id", "year", name=op.f("pk_birthday_gift")),
    )


def _referrals() -> None:
    op.create_table(
        "referral_link",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("device_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("code", name=op.f("pk_referral_link")),
    )
    op.create_table(
        "referral",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("referrer_id", sa.Uuid(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("member_id", "program_id", name=op.f("pk_referral")),
    )
    op.create_index(op.f("ix_referral_referrer_id"), "referral", ["referrer_id"])


def _red_packets() -> None:
    op.create_table(
        "red_packet",
        sa.Column("packet_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("shares", sa.Integer(), nullable=False),
        sa.Column("minimum", sa.BigInteger(), nullable=False),
        sa.Column("opened", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("seed_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("commitment", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.CheckConstraint("asset IN ('points', 'mb', 'fen')", name=op.f("ck_red_packet_asset")),
        sa.CheckConstraint("opened BETWEEN 0 AND shares", name=op.f("ck_red_packet_opened")),
        sa.CheckConstraint(
            "minimum > 0 AND shares > 0 AND shares * minimum <= total", name=op.f("ck_red_packet_shares")
        ),
        sa.CheckConstraint("state IN ('open', 'finished', 'expired')", name=op.f("ck_red_packet_state")),
        sa.PrimaryKeyConstraint("packet_id", name=op.f("pk_red_packet")),
    )
    op.create_index(op.f("ix_red_packet_member_id"), "red_packet", ["member_id"])
    op.create_index("ix_red_packet_due", "red_packet", ["expires_at"], postgresql_where=sa.text("state = 'open'"))
    op.create_table(
        "red_packet_share",
        sa.Column("packet_id", sa.Uuid(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("packet_id", "member_id", name=op.f("pk_red_packet_share")),
        sa.UniqueConstraint("packet_id", "number", name=op.f("uq_red_packet_share_packet_id_number")),
    )


def _draws() -> None:
    op.create_table(
        "draw",
        sa.Column("draw_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.Column("commitment", sa.LargeBinary(), nullable=False),
        sa.Column("seed_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("seed", sa.LargeBinary(), nullable=True),
        sa.Column("closing", sa.Text(), nullable=True),
        sa.Column("opens_at", Moment(), nullable=False),
        sa.Column("closes_at", Moment(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("revealed_at", Moment(), nullable=True),
        sa.CheckConstraint("(state IN ('closed', 'revealed')) = (closing IS NOT NULL)", name=op.f("ck_draw_closing")),
        sa.CheckConstraint("length(commitment) = 32", name=op.f("ck_draw_commitment")),
        sa.CheckConstraint("opens_at < closes_at", name=op.f("ck_draw_period")),
        sa.CheckConstraint("(state = 'revealed') = (seed IS NOT NULL)", name=op.f("ck_draw_seed")),
        sa.CheckConstraint("state IN ('published', 'open', 'closed', 'revealed')", name=op.f("ck_draw_state")),
        sa.PrimaryKeyConstraint("draw_id", name=op.f("pk_draw")),
    )
    op.create_index(op.f("ix_draw_brand_id"), "draw", ["brand_id"])
    op.create_table(
        "draw_stripe",
        sa.Column("draw_id", sa.Uuid(), nullable=False),
        sa.Column("stripe", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("size", sa.Integer(), nullable=True),
        sa.Column("plays", sa.Integer(), nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("plays >= 0 AND (size IS NULL OR plays <= size)", name=op.f("ck_draw_stripe_plays")),
        sa.PrimaryKeyConstraint("draw_id", "stripe", name=op.f("pk_draw_stripe")),
    )
    op.create_table(
        "draw_quota",
        sa.Column("draw_id", sa.Uuid(), nullable=False),
        sa.Column("prize", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("drawn", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("drawn >= 0", name=op.f("ck_draw_quota_drawn")),
        sa.PrimaryKeyConstraint("draw_id", "prize", name=op.f("pk_draw_quota")),
    )


def _draw_plays() -> None:
    op.create_table(
        "draw_ticket",
        sa.Column("draw_id", sa.Uuid(), nullable=False),
        sa.Column("stripe", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("ticket", sa.LargeBinary(), nullable=False),
        sa.Column("drawn", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=True),
        sa.Column("prize", sa.Integer(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("link", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("length(link) = 32", name=op.f("ck_draw_ticket_link")),
        sa.CheckConstraint("position >= 0 AND drawn >= 0 AND prize >= 0", name=op.f("ck_draw_ticket_numbers")),
        sa.PrimaryKeyConstraint("draw_id", "stripe", "position", name=op.f("pk_draw_ticket")),
    )
    op.create_table(
        "draw_play",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("play_id", sa.Uuid(), nullable=False),
        sa.Column("draw_id", sa.Uuid(), nullable=False),
        sa.Column("entropy", sa.LargeBinary(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("stripe", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("member_id", "play_id", name=op.f("pk_draw_play")),
    )
    op.create_index("ix_draw_play_member_id_draw_id_turn", "draw_play", ["member_id", "draw_id", "turn"])


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
