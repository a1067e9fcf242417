"""The `fanxing tier` commands: rules are set, purchases quoted, members explained, cards recalculated."""

import asyncio
import json
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import select

from codes.catalogue import Brand
from kit import vault as vaults
from kit.db import Database
from loyalty import purchases
from loyalty.purchases import Buyer, NewPurchase
from tests.scan_api.test_commands import ON_SQLITE, Terminal, bare, shop

__all__ = ["bare", "shop"]

FACE = {"colours": ["#1f2937"], "text_colour": "#ffffff"}
RULES: dict[str, Any] = {
    "replaces": 0,
    "tiers": [
        {"slug": "member", "name_zh": "会员", "name_en": "Member", "card_face": FACE},
        {"slug": "gold", "name_zh": "金卡", "name_en": "Gold", "card_face": FACE, "needs": {"purchases": 2}},
    ],
}
PHONE = "+8613800138000"


def rules_file(terminal: Terminal, **changes: Any) -> str:
    path = terminal.home / "tiers.json"
    path.write_text(json.dumps(RULES | changes), encoding="utf-8")
    return str(path)


def in_database(terminal: Terminal, work: Any) -> Any:
    async def done() -> Any:
        database = Database(terminal.database_url)
        try:
            async with database.writing() as session:
                return await work(session)
        finally:
            await database.close()

    return asyncio.run(done())


def buy(terminal: Terminal, times: int) -> None:
    async def work(session: Any) -> None:
        brand = (await session.exec(select(Brand).where(Brand.slug == "ice"))).one()
        for _ in range(times):
            new = NewPurchase(brand.brand_id, brand.group_id, uuid.uuid4(), "r", Buyer(phone=PHONE), 12_300)
            await purchases.record(session, vaults.load(terminal.home / "vault.key"), new, datetime.now(UTC))

    in_database(terminal, work)


@ON_SQLITE
def test_rules_are_checked_set_and_shown(shop: Terminal) -> None:
    assert shop.ask("tier show --brand ice")["version"] == 0
    tried = shop.ask(f"tier set --brand ice {rules_file(shop)} --dry-run")
    assert (tried["dry_run"], shop.ask("tier show --brand ice")["version"]) == (True, 0)
    shop.ask(f"tier set --brand ice {rules_file(shop)}")
    shown = shop.ask("tier show --brand ice")
    assert (shown["version"], [tier["slug"] for tier in shown["tiers"]]) == (1, ["member", "gold"])
    assert shop.refusal(f"tier set --brand ice {rules_file(shop)}") == "TierRulesChanged"
    assert shop.refusal(f"tier set --brand ice {rules_file(shop, window_months=0)} --dry-run") == "TierRulesInvalid"
    assert shop.refusal(f"tier set --brand ice {rules_file(shop, colour='red')}") == "TierFileInvalid"
    told = shop.run("tier show --brand ice").output
    assert "金卡 Gold" in told


@ON_SQLITE
def test_earn_rules_are_made_quoted_and_ended(shop: Terminal) -> None:
    rule = shop.ask("tier earn-add --brand ice --points-per-yuan-milli 1000 --tier-permille 1000,1500")
    assert shop.ask("tier earn-list --brand ice") == [rule]
    shop.ask(f"tier set --brand ice {rules_file(shop)}")
    before = shop.rows()
    quoted = shop.ask("tier quote --brand ice --paid-fen 10000 --line :4000 --tier gold")
    assert (quoted["points"], quoted["by_line"]) == (150, [90, 60])
    assert shop.rows() == before
    shop.ask(f"tier earn-end --brand ice {rule['rule_id']}")
    assert shop.ask("tier earn-list --brand ice") == []
    assert shop.refusal(f"tier earn-end --brand ice {rule['rule_id']}") == "EarnRuleUnknown"


def test_a_member_is_explained_and_cards_are_recalculated(shop: Terminal) -> None:
    shop.ask(f"tier set --brand ice {rules_file(shop)}")
    buy(shop, 2)
    explained = shop.ask(f"tier explain --brand ice --phone {PHONE}")
    assert (explained["tier"], explained["explanation_en"]) == (
        "gold",
        "2 purchases and ¥246 in 12 months; the highest tier",
    )
    assert [change["reason"] for change in explained["changes"]] == ["earned"]
    ahead = f"{datetime.now(UTC).year + 3}-01-01"
    falls = shop.ask(f"tier recalculate --brand ice --as-of {ahead} --dry-run")
    assert (falls["cards"], falls["moved"]) == (1, [{"from": "gold", "to": "member", "cards": 1}])
    assert shop.run(f"tier recalculate --brand ice --as-of {ahead}").exit_code == 2
    assert shop.ask("tier recalculate --brand ice")["differing"] == 0
    in_database(shop, lambda session: session.exec(text("UPDATE card SET tier_rank = 0")))
    assert shop.ask("tier recalculate --brand ice --dry-run")["differing"] == 1
    assert shop.refusal("tier recalculate --brand ice --check") == "TiersDiffer"


def test_flows_are_those_of_a_group(shop: Terminal) -> None:
    assert shop.refusal("tier flows --group Nobody") == "GroupUnknown"
