"""Members: proof and merging, profiles, consents, limits of one-time codes, CRM imports."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("member") as member:
        member.add_column(sa.Column("proven_at", Moment(), nullable=True))
        member.add_column(sa.Column("merged_into", sa.Uuid(), nullable=True))
    op.execute("UPDATE member SET proven_at = created_at")
    merged = sa.text("merged_into IS NOT NULL")
    op.create_index("ix_member_merged_into", "member", ["merged_into"], postgresql_where=merged, sqlite_where=merged)
    with op.batch_alter_table("phone_identity") as identity:
        identity.add_column(sa.Column("origin_id", sa.Uuid(), nullable=True))
    op.execute("UPDATE phone_identity SET origin_id = member_id")
    with op.batch_alter_table("phone_identity") as identity:
        identity.alter_column("origin_id", existing_type=sa.Uuid(), nullable=False)
    op.create_table(
        "member_profile",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("name_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("birthday_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("birthday_key", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint(
            "(birthday_sealed IS NULL) = (birthday_key IS NULL)", name=op.f("ck_member_profile_birthday")
        ),
        sa.PrimaryKeyConstraint("member_id", name=op.f("pk_member_profile")),
    )
    op.create_index(
        "ix_member_profile_birthday",
        "member_profile",
        ["birthday_key", "member_id"],
        postgresql_where=sa.text("birthday_key IS NOT NULL"),
        sqlite_where=sa.text("birthday_key IS NOT NULL"),
    )
    op.create_table(
        "code_window",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("subject", sa.LargeBinary(), nullable=False),
        sa.Column("opened_at", Moment(), nullable=False),
        sa.Column("codes", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "scope IN ('phone', 'device', 'ipv4', 'ipv4-block', 'ipv6', 'ipv6-block', 'ipv4-tries', 'ipv6-tries', "
            "'till')",
            name=op.f("ck_code_window_scope"),
        ),
        sa.CheckConstraint("codes > 0", name=op.f("ck_code_window_codes")),
        sa.PrimaryKeyConstraint("scope", "subject", name=op.f("pk_code_window")),
    )
    op.create_table(
        "consent_document",
        sa.Column("group_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("title_zh", sa.Text(), nullable=False),
        sa.Column("title_en", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("published_at", Moment(), nullable=False),
        sa.CheckConstraint("length(kind) BETWEEN 1 AND 40", name=op.f("ck_consent_document_kind")),
        sa.CheckConstraint("length(version) BETWEEN 1 AND 40", name=op.f("ck_consent_document_version")),
        sa.PrimaryKeyConstraint("group_id", "kind", "version", name=op.f("pk_consent_document")),
    )
    op.create_table(
        "consent",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("consent_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("is_given", sa.Boolean(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.CheckConstraint("channel IN ('api', 'page', 'crm', 'service')", name=op.f("ck_consent_channel")),
        sa.PrimaryKeyConstraint("member_id", "consent_id", name=op.f("pk_consent")),
        sa.UniqueConstraint("member_id", "kind", "number", name=op.f("uq_consent_member_id_kind_number")),
    )
    _imports()
    _merges()


def _imports() -> None:
    op.create_table(
        "crm_import",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("file_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("started_at", Moment(), nullable=False),
        sa.Column("finished_at", Moment(), nullable=True),
        sa.CheckConstraint("mode IN ('open', 'raise')", name=op.f("ck_crm_import_mode")),
        sa.PrimaryKeyConstraint("import_id", name=op.f("pk_crm_import")),
    )
    op.create_table(
        "crm_import_chunk",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("import_id", "number", name=op.f("pk_crm_import_chunk")),
    )
    op.create_table(
        "crm_record",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("points_before", sa.BigInteger(), nullable=False),
        sa.Column("experience", sa.BigInteger(), nullable=False),
        sa.Column("experience_before", sa.BigInteger(), nullable=False),
        sa.Column("tier_rank", sa.Integer(), nullable=False),
        sa.Column("tier_rank_before", sa.Integer(), nullable=False),
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("chunk", sa.Integer(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.CheckConstraint("0 <= points_before AND points_before <= points", name=op.f("ck_crm_record_points")),
        sa.CheckConstraint(
            "0 <= experience_before AND experience_before <= experience", name=op.f("ck_crm_record_experience")
        ),
        sa.PrimaryKeyConstraint("member_id", "brand_id", name=op.f("pk_crm_record")),
    )


def _merges() -> None:
    op.create_table(
        "member_merge",
        sa.Column("survivor_id", sa.Uuid(), nullable=False),
        sa.Column("merge_id", sa.Uuid(), nullable=False),
        sa.Column("merged_id", sa.Uuid(), nullable=False),
        sa.Column("approval", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("cards", sa.JSON(), nullable=False),
        sa.Column("benefits", sa.JSON(), nullable=False),
        sa.Column("points_owed", sa.BigInteger(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("undone_at", Moment(), nullable=True),
        sa.CheckConstraint("approval IN ('codes', 'operator')", name=op.f("ck_member_merge_approval")),
        sa.CheckConstraint("survivor_id <> merged_id", name=op.f("ck_member_merge_two")),
        sa.PrimaryKeyConstraint("survivor_id", "merge_id", name=op.f("pk_member_merge")),
    )
    op.create_index(op.f("ix_member_merge_merged_id"), "member_merge", ["merged_id"])
    op.create_table(
        "member_merge_move",
        sa.Column("survivor_id", sa.Uuid(), nullable=False),
        sa.Column("merge_id", sa.Uuid(), nullable=False),
        sa.Column("transfer_id", sa.Uuid(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=True),
        sa.Column("at", Moment(), nullable=False),
        sa.CheckConstraint("amount <> 0", name=op.f("ck_member_merge_move_amount")),
        sa.PrimaryKeyConstraint("survivor_id", "merge_id", "transfer_id", name=op.f("pk_member_merge_move")),
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
