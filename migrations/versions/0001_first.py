"""The first schema."""

import sqlalchemy as sa
from alembic import op

from kit.db import Moment
from loyalty.ledger import append_only_ddl

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=True),
        sa.Column("gtin_prefixes", sa.JSON(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("revoked_at", Moment(), nullable=True),
        sa.CheckConstraint("role IN ('brand', 'logistics', 'shop', 'regulator')", name=op.f("ck_api_key_role")),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_key")),
    )
    op.create_table(
        "brand_group",
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", name=op.f("pk_brand_group")),
        sa.UniqueConstraint("name", name=op.f("uq_brand_group_name")),
    )
    op.create_table(
        "campaign",
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("title_zh", sa.Text(), nullable=False),
        sa.Column("title_en", sa.Text(), nullable=False),
        sa.Column("face", sa.Integer(), nullable=False),
        sa.Column("prize_kind", sa.Text(), nullable=False),
        sa.Column("prize_amount", sa.BigInteger(), nullable=False),
        sa.Column("coupon_text_zh", sa.Text(), nullable=False),
        sa.Column("coupon_text_en", sa.Text(), nullable=False),
        sa.Column("coupon_value_fen", sa.BigInteger(), nullable=False),
        sa.Column("coupon_valid_days", sa.Integer(), nullable=False),
        sa.Column("gtin", sa.Text(), nullable=True),
        sa.Column("budget", sa.BigInteger(), nullable=False),
        sa.Column("stripes", sa.Integer(), nullable=False),
        sa.Column("starts_at", Moment(), nullable=False),
        sa.Column("ends_at", Moment(), nullable=False),
        sa.Column("per_member_limit", sa.Integer(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.CheckConstraint("(prize_kind = 'coupon') = (coupon_valid_days > 0)", name=op.f("ck_campaign_coupon")),
        sa.CheckConstraint("prize_kind IN ('points', 'mb', 'coupon')", name=op.f("ck_campaign_prize_kind")),
        sa.CheckConstraint("status IN ('active', 'paused')", name=op.f("ck_campaign_status")),
        sa.CheckConstraint("face IN (1, 2)", name=op.f("ck_campaign_face")),
        sa.CheckConstraint(
            "per_member_limit IS NULL OR per_member_limit > 0", name=op.f("ck_campaign_per_member_limit")
        ),
        sa.CheckConstraint(
            "prize_amount > 0 AND budget > 0 AND budget % prize_amount = 0", name=op.f("ck_campaign_budget")
        ),
        sa.CheckConstraint("starts_at < ends_at", name=op.f("ck_campaign_period")),
        sa.CheckConstraint("stripes BETWEEN 1 AND 64", name=op.f("ck_campaign_stripes")),
        sa.PrimaryKeyConstraint("campaign_id", name=op.f("pk_campaign")),
    )
    op.create_index(op.f("ix_campaign_brand_id"), "campaign", ["brand_id"], unique=False)
    op.create_table(
        "card",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("card_number", sa.Text(), nullable=False),
        sa.Column("joined_at", Moment(), nullable=False),
        sa.CheckConstraint("length(card_number) = 16", name=op.f("ck_card_card_number")),
        sa.PrimaryKeyConstraint("member_id", "brand_id", name=op.f("pk_card")),
    )
    op.create_table(
        "claim",
        sa.Column("item_key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("claim_id", sa.Uuid(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("prize_amount", sa.BigInteger(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("item_key", "campaign_id", name=op.f("pk_claim")),
    )
    op.create_table(
        "coupon",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("coupon_id", sa.Uuid(), nullable=False),
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("code_fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("code_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("text_zh", sa.Text(), nullable=False),
        sa.Column("text_en", sa.Text(), nullable=False),
        sa.Column("value_fen", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("issued_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("redeemed_at", Moment(), nullable=True),
        sa.Column("redeemed_by", sa.Uuid(), nullable=True),
        sa.CheckConstraint("(status = 'redeemed') = (redeemed_at IS NOT NULL)", name=op.f("ck_coupon_redeemed_at")),
        sa.CheckConstraint("status IN ('issued', 'redeemed')", name=op.f("ck_coupon_status")),
        sa.CheckConstraint("value_fen >= 0", name=op.f("ck_coupon_value_fen")),
        sa.PrimaryKeyConstraint("member_id", "coupon_id", name=op.f("pk_coupon")),
    )
    op.create_index(op.f("ix_coupon_code_fingerprint"), "coupon", ["code_fingerprint"], unique=False)
    op.create_table(
        "data_order",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("item_key", sa.BigInteger(), nullable=False),
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("budget_holder_id", sa.Uuid(), nullable=False),
        sa.Column("megabytes", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("settled_at", Moment(), nullable=True),
        sa.CheckConstraint("state IN ('pending', 'submitted', 'settled', 'failed')", name=op.f("ck_data_order_state")),
        sa.CheckConstraint("megabytes > 0", name=op.f("ck_data_order_megabytes")),
        sa.PrimaryKeyConstraint("member_id", "order_id", name=op.f("pk_data_order")),
    )
    op.create_table(
        "idempotent_request",
        sa.Column("caller_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=True),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("caller_id", "key", name=op.f("pk_idempotent_request")),
    )
    op.create_table(
        "issuer",
        sa.Column("issuer_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("gtin_prefixes", sa.JSON(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("issuer_id", name=op.f("pk_issuer")),
        sa.UniqueConstraint("name", name=op.f("uq_issuer_name")),
    )
    op.create_table(
        "item",
        sa.Column("item_key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first_scan_at", Moment(), nullable=False),
        sa.Column("last_scan_at", Moment(), nullable=False),
        sa.Column("scan_count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("item_key", name=op.f("pk_item")),
    )
    op.create_table(
        "item_event",
        sa.Column("item_key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("recorded_at", Moment(), nullable=False),
        sa.Column("place", sa.Text(), nullable=True),
        sa.Column("by", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "step IN ('commissioned', 'activated', 'shipped', 'received', 'recalled')", name=op.f("ck_item_event_step")
        ),
        sa.PrimaryKeyConstraint("item_key", "event_id", name=op.f("pk_item_event")),
    )
    op.create_table(
        "ledger_account",
        sa.Column("holder_id", sa.Uuid(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("balance", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "balance BETWEEN 0 AND 1000000000000000000 OR (purpose = 'issuance' AND abs(balance) <= 1000000000000000000)",
            name=op.f("ck_ledger_account_balance"),
        ),
        sa.CheckConstraint(
            "purpose IN ('issuance', 'budget', 'available', 'pending', 'delivered', 'redeemed')",
            name=op.f("ck_ledger_account_purpose"),
        ),
        sa.PrimaryKeyConstraint("holder_id", "asset", "purpose", name=op.f("pk_ledger_account")),
    )
    op.create_table(
        "ledger_entry",
        sa.Column("holder_id", sa.Uuid(), nullable=False),
        sa.Column("transfer_id", sa.Uuid(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("balance_after", sa.BigInteger(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.CheckConstraint("amount <> 0 AND abs(amount) <= 1000000000000", name=op.f("ck_ledger_entry_amount")),
        sa.PrimaryKeyConstraint("holder_id", "transfer_id", "asset", "purpose", name=op.f("pk_ledger_entry")),
    )
    op.create_table(
        "ledger_transfer",
        sa.Column("transfer_id", sa.Uuid(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("transfer_id", name=op.f("pk_ledger_transfer")),
    )
    op.create_table(
        "member",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("phone_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("member_id", name=op.f("pk_member")),
    )
    op.create_table(
        "member_campaign",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("campaign_id", sa.Uuid(), nullable=False),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("member_id", "campaign_id", name=op.f("pk_member_campaign")),
    )
    op.create_table(
        "member_key",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("key_sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("member_id", name=op.f("pk_member_key")),
    )
    op.create_table(
        "member_session",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("member_id", "token_hash", name=op.f("pk_member_session")),
    )
    op.create_table(
        "one_time_code",
        sa.Column("phone_fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("sent_at", sa.JSON(), nullable=False),
        sa.CheckConstraint("tries BETWEEN 0 AND 5", name=op.f("ck_one_time_code_tries")),
        sa.PrimaryKeyConstraint("phone_fingerprint", name=op.f("pk_one_time_code")),
    )
    op.create_table(
        "outbox",
        sa.Column("item_key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", Moment(), nullable=False),
        sa.Column("done_at", Moment(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("item_key", "message_id", name=op.f("pk_outbox")),
    )
    op.create_index(
        "ix_outbox_due", "outbox", ["topic", "due_at"], unique=False, postgresql_where=sa.text("done_at IS NULL")
    )
    op.create_table(
        "phone_identity",
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_phone_identity")),
    )
    op.create_index(op.f("ix_phone_identity_member_id"), "phone_identity", ["member_id"], unique=False)
    op.create_table(
        "revocation",
        sa.Column("revocation_id", sa.Uuid(), nullable=False),
        sa.Column("gtin", sa.Text(), nullable=False),
        sa.Column("order_min", sa.Integer(), nullable=False),
        sa.Column("order_max", sa.Integer(), nullable=False),
        sa.Column("item_number", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.CheckConstraint("item_number IS NULL OR order_min = order_max", name=op.f("ck_revocation_one_order")),
        sa.PrimaryKeyConstraint("revocation_id", name=op.f("pk_revocation")),
        sa.UniqueConstraint(
            "gtin",
            "order_min",
            "order_max",
            "item_number",
            name=op.f("uq_revocation_gtin_order_min_order_max_item_number"),
        ),
    )
    op.create_table(
        "scan",
        sa.Column("item_key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("scan_id", sa.Uuid(), nullable=False),
        sa.Column("face", sa.Integer(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.CheckConstraint("channel IN ('page', 'api')", name=op.f("ck_scan_channel")),
        sa.CheckConstraint("face IN (1, 2)", name=op.f("ck_scan_face")),
        sa.PrimaryKeyConstraint("item_key", "scan_id", name=op.f("pk_scan")),
    )
    op.create_table(
        "trust_bundle",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("issued_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_trust_bundle")),
    )
    op.create_table(
        "brand",
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("issuer_id", sa.Integer(), nullable=False),
        sa.Column("name_zh", sa.Text(), nullable=False),
        sa.Column("name_en", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["brand_group.group_id"], name=op.f("fk_brand_group_id")),
        sa.ForeignKeyConstraint(["issuer_id"], ["issuer.issuer_id"], name=op.f("fk_brand_issuer_id")),
        sa.PrimaryKeyConstraint("brand_id", name=op.f("pk_brand")),
        sa.UniqueConstraint("slug", name=op.f("uq_brand_slug")),
    )
    op.create_table(
        "serial_key",
        sa.Column("issuer_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["issuer_id"], ["issuer.issuer_id"], name=op.f("fk_serial_key_issuer_id")),
        sa.PrimaryKeyConstraint("issuer_id", name=op.f("pk_serial_key")),
    )
    op.create_table(
        "signing_key",
        sa.Column("kid", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("issuer_id", sa.Integer(), nullable=False),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.Column("public", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("not_before", Moment(), nullable=True),
        sa.Column("not_after", Moment(), nullable=True),
        sa.Column("order_min", sa.Integer(), nullable=False),
        sa.Column("order_max", sa.Integer(), nullable=False),
        sa.Column("custody_name", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.CheckConstraint("state IN ('active', 'retired', 'revoked')", name=op.f("ck_signing_key_state")),
        sa.CheckConstraint("kid BETWEEN 1 AND 99999", name=op.f("ck_signing_key_kid")),
        sa.CheckConstraint(
            "order_min BETWEEN 0 AND order_max AND order_max <= 99999", name=op.f("ck_signing_key_orders")
        ),
        sa.ForeignKeyConstraint(["issuer_id"], ["issuer.issuer_id"], name=op.f("fk_signing_key_issuer_id")),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_signing_key")),
        sa.UniqueConstraint("public", name=op.f("uq_signing_key_public")),
    )
    op.create_index(op.f("ix_signing_key_issuer_id"), "signing_key", ["issuer_id"], unique=False)
    op.create_table(
        "product",
        sa.Column("gtin", sa.Text(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("name_zh", sa.Text(), nullable=False),
        sa.Column("name_en", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.CheckConstraint("length(gtin) = 14", name=op.f("ck_product_gtin")),
        sa.ForeignKeyConstraint(["brand_id"], ["brand.brand_id"], name=op.f("fk_product_brand_id")),
        sa.PrimaryKeyConstraint("gtin", name=op.f("pk_product")),
    )
    op.create_index(op.f("ix_product_brand_id"), "product", ["brand_id"], unique=False)
    op.create_table(
        "code_order",
        sa.Column("order_id", sa.Integer(), nullable=False),
        sa.Column("gtin", sa.Text(), nullable=False),
        sa.Column("order_number", sa.Integer(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("outer_face", sa.Boolean(), nullable=False),
        sa.Column("inner_face", sa.Boolean(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=False),
        sa.Column("kid", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("recall_reason", sa.Text(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.CheckConstraint("state IN ('dormant', 'active', 'recalled')", name=op.f("ck_code_order_state")),
        sa.CheckConstraint("order_number BETWEEN 1 AND 99999", name=op.f("ck_code_order_order_number")),
        sa.CheckConstraint("outer_face OR inner_face", name=op.f("ck_code_order_faces")),
        sa.CheckConstraint("quantity BETWEEN 1 AND 1000000000", name=op.f("ck_code_order_quantity")),
        sa.ForeignKeyConstraint(["gtin"], ["product.gtin"], name=op.f("fk_code_order_gtin")),
        sa.ForeignKeyConstraint(["kid"], ["signing_key.kid"], name=op.f("fk_code_order_kid")),
        sa.PrimaryKeyConstraint("order_id", name=op.f("pk_code_order")),
        sa.UniqueConstraint("gtin", "order_number", name=op.f("uq_code_order_gtin_order_number")),
    )
    op.create_table(
        "order_event",
        sa.Column("order_id", sa.Integer(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("recorded_at", Moment(), nullable=False),
        sa.Column("place", sa.Text(), nullable=True),
        sa.Column("by", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "step IN ('commissioned', 'activated', 'shipped', 'received', 'recalled')", name=op.f("ck_order_event_step")
        ),
        sa.ForeignKeyConstraint(["order_id"], ["code_order.order_id"], name=op.f("fk_order_event_order_id")),
        sa.PrimaryKeyConstraint("order_id", "event_id", name=op.f("pk_order_event")),
    )
    for statement in append_only_ddl(op.get_bind().dialect.name):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("the first version has nothing before it")
