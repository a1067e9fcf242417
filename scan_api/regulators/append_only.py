"""Append-only tables of regulators: the database itself refuses changes, and deletes only what need not be kept."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, MetaData, Table, event
from sqlmodel import SQLModel

TABLES: Final = ("regulator_access", "regulator_access_brand", "recall_step")
_FOR_EVER: Final = ("recall_step",)
_WORDS: Final = "is append-only"


def statements(dialect: str, tables: Sequence[str] = TABLES) -> list[str]:
    """What makes them so; `SQLModel.metadata.create_all` runs it, and a migration has to. "sqlite" or "postgresql"."""
    return _on_postgresql(tables) if dialect == "postgresql" else _on_sqlite(tables)


def _on_postgresql(tables: Sequence[str]) -> list[str]:
    # The row is asked for as JSON, since one of the tables keeps everything and has no such column.
    function = (
        "CREATE OR REPLACE FUNCTION regulators_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF TG_OP = 'DELETE' THEN "
        "IF (to_jsonb(OLD) ->> 'kept_until')::timestamptz <= now() THEN RETURN OLD; END IF; END IF; "
        f"RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' {_WORDS}'; END $$"
    )
    made = [function]
    for table in tables:
        made += [
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION regulators_refuse_change()",
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION regulators_refuse_change()",
        ]
    return made


def _on_sqlite(tables: Sequence[str]) -> list[str]:
    made = []
    for table in tables:
        refuse = f"BEGIN SELECT RAISE(ABORT, '{table} {_WORDS}'); END"
        kept = "" if table in _FOR_EVER else "WHEN OLD.kept_until > strftime('%Y-%m-%d %H:%M:%f', 'now') "
        made += [
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {refuse}",
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {kept}{refuse}",
        ]
    return made


@event.listens_for(SQLModel.metadata, "after_create")
def _make_append_only(_metadata: MetaData, connection: Connection, tables: Sequence[Table], **_options: object) -> None:
    made = {table.name for table in tables}
    own = [name for name in TABLES if name in made]
    for statement in statements(connection.dialect.name, own) if own else ():
        connection.exec_driver_sql(statement)
