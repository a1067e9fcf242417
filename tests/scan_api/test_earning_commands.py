"""`fanxing draw` and `fanxing earning`: from a plan to a record that a stranger verifies from the file alone."""

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kit import vault as vaults
from kit.db import Database
from loyalty import members
from loyalty.draws import catalogue, plays
from loyalty.draws.plays import PlayRequest
from tests.scan_api.test_commands import ON_SQLITE, Terminal, bare, shop

__all__ = ["bare", "shop"]

NOW = datetime.now(UTC)
PLAN: dict[str, Any] = {
    "form": "odds",
    "title": {"zh": "夏日盲盒", "en": "Summer box"},
    "opens_at": f"{NOW - timedelta(days=1):%Y-%m-%d}T00:00:00+08:00",
    "closes_at": f"{NOW + timedelta(days=2):%Y-%m-%d}T00:00:00+08:00",
    "prizes": [
        {
            "name": {"zh": "一等奖", "en": "First"},
            "kind": "fen",
            "amount": 100,
            "value_fen": 100,
            "quantity": 1,
            "weight": 1,
        },
        {"name": {"zh": "谢谢参与", "en": "None"}, "kind": "nothing", "amount": 0, "weight": 3},
    ],
    "consolation": 1,
}
PROGRAM = "earning create --brand ice --title-zh 签到 --title-en Daily --starts 2026-01-01"
RULES = {
    "check_in": {"points": 5, "bonuses": {"7": 50}},
    "task": {"done_by": "first_scan", "period": "once", "prize": {"kind": "points", "amount": 20}},
    "referral": {
        "referrer": {"kind": "points", "amount": 30},
        "friend": {"kind": "mb", "amount": 10},
        "window_hours": 72,
    },
    "packet": {"asset": "fen", "total": 1000, "shares": 5, "minimum": 1, "valid_hours": 24},
    "birthday": {"prize": {"kind": "points", "amount": 66}},
}


def write_plan(shop: Terminal, **changes: Any) -> Path:
    path = shop.home / "plan.json"
    path.write_text(json.dumps(PLAN | changes), encoding="utf-8")
    return path


def play(shop: Terminal, draw_id: str, times: int) -> list[bytes]:
    """Play as one member, as often; the receipts."""

    async def work() -> list[bytes]:
        vault, database = vaults.load(shop.home / "vault.key"), Database(shop.database_url, 2)
        try:
            async with database.writing() as session:
                draw = await catalogue.get(session, uuid.UUID(draw_id))
                member, _ = await members.find_or_enrol(session, vault, draw.group_id, "13800138000", NOW)
            receipts = []
            for _ in range(times):
                request = PlayRequest(uuid.uuid4(), member.member_id, draw.draw_id, uuid.uuid4().bytes)
                async with database.writing() as session:
                    receipts.append((await plays.play(session, vault, request, datetime.now(UTC))).receipt)
            return receipts
        finally:
            await database.close()

    return asyncio.run(work())


def finished(shop: Terminal, times: int = 12) -> tuple[dict[str, Any], Path, list[bytes]]:
    """What a draw that was played to its end says of itself, its record, and the receipts."""
    made = shop.ask(f"draw create {write_plan(shop)} --brand ice")
    shop.ask(f"draw open {made['draw_id']}")
    receipts = play(shop, made["draw_id"], times)
    shop.ask(f"draw close {made['draw_id']} --yes")
    told = shop.ask(f"draw reveal {made['draw_id']} --yes")
    path = shop.home / "record.ndjson"
    assert shop.ask(f"draw record {made['draw_id']} --output {path}")["plays"] == times
    return told, path, receipts


def test_a_draw_from_its_plan_to_its_verification(shop: Terminal) -> None:
    told, path, receipts = finished(shop)
    kept = shop.home / "receipts"
    kept.write_bytes(b"".join(receipts[::3]))
    line = f"draw verify {path} --commitment {told['commitment']} --closing {told['closing_digest']} --receipt {kept}"
    checked = Terminal(shop.home / "nowhere", "sqlite:////nowhere/at.all").ask(line)
    assert (checked["plays"], checked["receipts_found"], checked["totals_match"]) == (12, 4, True)
    assert (checked["commitment"], checked["closing_is_the_published_one"]) == (told["commitment"], True)
    assert sum(prize["given"] for prize in checked["prizes"]) == 12
    assert [prize["published"] for prize in checked["prizes"]] == [1, None]
    assert checked["notes"] == ["The draw was closed before the time that its terms name."]
    shown = shop.run(f"draw verify {path}")
    assert "The totals match the published quantities." in shown.output
    assert "Compare the commitment yourself" in shown.output


@ON_SQLITE
def test_a_forged_record_is_refused_at_its_line(shop: Terminal) -> None:
    told, path, _ = finished(shop, 4)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[3], lines[2], lines[4]]))
    assert shop.refusal(f"draw verify {path}") == "DrawRecordWrong"
    assert "line 3:" in shop.run(f"draw verify {path}").output
    path.write_bytes(b"".join(lines))
    assert shop.refusal(f"draw verify {path} --commitment {'00' * 32}") == "DrawRecordWrong"
    assert shop.refusal(f"draw verify {path} --closing {told['commitment']}") == "DrawRecordWrong"
    assert shop.run(f"draw verify {path} --closing xyz").exit_code == 2
    path.write_bytes(b"")
    assert shop.refusal(f"draw verify {path}") == "DrawRecordWrong"
    assert shop.refusal(f"draw verify {path}.not-there") == "FileRefused"


@ON_SQLITE
def test_a_dry_run_shows_the_odds_and_publishes_nothing(shop: Terminal) -> None:
    before = shop.rows()
    shown = shop.ask(f"draw create {write_plan(shop)} --brand ice --dry-run")
    assert [entry["percent"] for entry in shown["odds"]] == ["25", "75"]
    assert shop.rows() == before
    assert "1 in 4" in shop.run(f"draw create {write_plan(shop)} --brand ice --dry-run").output


@ON_SQLITE
def test_a_plan_of_no_draw_is_refused(shop: Terminal) -> None:
    assert shop.refusal(f"draw create {write_plan(shop, form='lottery')} --brand ice") == "DrawInvalid"
    (shop.home / "plan.json").write_text("[]", encoding="utf-8")
    assert shop.refusal(f"draw create {shop.home / 'plan.json'} --brand ice") == "DrawInvalid"


@ON_SQLITE
def test_closing_and_revealing_ask_for_a_yes(shop: Terminal) -> None:
    made = shop.ask(f"draw create {write_plan(shop)} --brand ice")
    assert shop.ask(f"draw close {made['draw_id']}")["state"] == "published"
    assert shop.ask(f"draw reveal {made['draw_id']}")["seed"] is None
    assert shop.refusal(f"draw reveal {made['draw_id']} --yes") == "DrawNotOpen"
    assert shop.refusal(f"draw record {made['draw_id']} --output {shop.home / 'x'}") == "DrawNotOpen"
    assert [row["state"] for row in shop.ask("draw list --brand ice")] == ["published"]
    assert shop.refusal(f"draw open {uuid.uuid4()}") == "DrawUnknown"


@ON_SQLITE
@pytest.mark.parametrize("kind", RULES)
def test_a_program_is_planned_and_made(shop: Terminal, kind: str) -> None:
    line = f"{PROGRAM} --kind {kind} --budget 100 --rules '{json.dumps(RULES[kind])}'"
    planned = shop.ask(f"{line} --dry-run")["sets_aside"]
    assert shop.ask(line)["kind"] == kind
    [listed] = shop.ask("earning list --brand ice")
    assert listed["budget_left"] == planned


def test_a_program_is_paused_and_resumed(shop: Terminal) -> None:
    made = shop.ask(f"{PROGRAM} --kind check_in --rules '{json.dumps(RULES['check_in'])}'")
    assert shop.ask(f"earning pause {made['program_id']}")["status"] == "paused"
    assert [row["status"] for row in shop.ask("earning list --brand ice")] == ["paused"]
    assert shop.ask(f"earning resume {made['program_id']}")["status"] == "active"
    assert shop.refusal(f"earning pause {uuid.uuid4()}") == "ProgramUnknown"


@ON_SQLITE
@pytest.mark.parametrize("rules", ["", '{"points": 5, "more": 1}'])
def test_rules_of_no_program_are_refused(shop: Terminal, rules: str) -> None:
    assert shop.refusal(f"{PROGRAM} --kind check_in --rules '{rules}'") == "ProgramInvalid"


@ON_SQLITE
def test_a_sweep_tells_what_it_did(shop: Terminal) -> None:
    shop.ask(f"{PROGRAM} --kind birthday --rules '{json.dumps(RULES['birthday'])}'")
    assert shop.ask("earning sweep") == {
        "birthday_gifts": 0,
        "budgets_used_up": 0,
        "packets_expired": 0,
        "counts_forgotten": 0,
    }
