"""Parties of events, with an index of their own; kinds of tallies for what was refused online."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from kit.db import Moment
from scan_api.provenance import parties

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_BATCH_ROWS = 1_000
_KINDS = (
    "'issued', 'activated', 'voided', 'recalled', 'scans', 'refused', 'suspected_fakes', 'refused_online', "
    "'suspected_fakes_online', 'suspected_copies', 'recall_orders'"
)


def upgrade() -> None:
    table = op.create_table(
        "event_party",
        sa.Column("party", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("brand_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("event_time", Moment(), nullable=False),
        sa.Column("event_key", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("party", "brand_id", "event_time", "event_key", name=op.f("pk_event_party")),
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute("SET LOCAL statement_timeout = 0")  # it reads all events
    rows = _rows(op.get_bind())
    while batch := list(itertools.islice(rows, _BATCH_ROWS)):
        op.bulk_insert(table, batch)
    with op.batch_alter_table("tally") as tally:
        tally.drop_constraint(op.f("ck_tally_kind"), type_="check")
        tally.create_check_constraint(op.f("ck_tally_kind"), f"kind IN ({_KINDS})")


def _rows(connection: sa.Connection) -> Iterator[dict[str, Any]]:
    event = sa.table(
        "epcis_event",
        sa.column("brand_id", sa.Integer()),
        sa.column("event_time", Moment()),
        sa.column("event_key", sa.Uuid()),
        sa.column("read_point", sa.Text()),
        sa.column("biz_location", sa.Text()),
        sa.column("content", sa.Text()),
    ).c
    named = sa.or_(
        event.content.contains('"sourceList"'),
        event.content.contains('"destinationList"'),
        event.read_point.contains(parties.EXTENSION),
        event.biz_location.contains(parties.EXTENSION),
    )
    asked = sa.select(event.brand_id, event.event_time, event.event_key, event.content).where(named)
    for brand_id, event_time, event_key, content in connection.execute(
        asked, execution_options={"yield_per": _BATCH_ROWS}
    ):
        for party in parties.indexed(json.loads(content)):
            yield {"party": party, "brand_id": brand_id, "event_time": event_time, "event_key": event_key}


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead")
