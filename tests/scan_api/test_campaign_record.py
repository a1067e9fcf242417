"""A campaign that draws, from its claims over HTTP to a record that anybody verifies without a database."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlmodel import select

from codes.catalogue import Brand
from kit.db import Session
from loyalty import campaigns
from loyalty.campaigns import Campaign, Face, NewCampaign, NewPrize
from loyalty.prizes import Prize, PrizeKind
from tests.scan_api.test_commands import Terminal
from tests.stand import BRAND, MakeStand

CLAIMS = 12
PRIZES = (
    NewPrize(Prize(PrizeKind.POINTS, 500), 500, weight=1),
    NewPrize(Prize(PrizeKind.POINTS, 10), 10 * CLAIMS, weight=2),
    NewPrize(Prize(PrizeKind.NOTHING, 0), 0, weight=3),
)


def test_a_campaigns_record_is_verified_by_who_has_nothing_but_the_file(make_stand: MakeStand, tmp_path: Path) -> None:
    stand, now = make_stand(), datetime.now(UTC)
    stand.server.start()

    async def create(session: Session) -> Campaign:
        brand = (await session.exec(select(Brand).where(Brand.slug == BRAND))).one()
        new = NewCampaign(
            brand_id=brand.brand_id or 0,
            group_id=brand.group_id,
            title_zh="抽奖",
            title_en="Draw",
            face=Face.INNER,
            prizes=PRIZES,
            starts_at=now - timedelta(days=1),
            ends_at=now + timedelta(days=1),
        )
        return await campaigns.create(session, stand.vault, new, now)

    async def reveal(session: Session) -> None:
        await campaigns.reveal(session, stand.vault, made.campaign_id, made.ends_at)

    made, member = stand.run(create), stand.member()
    assert made.commitment is not None
    items = stand.take_items(CLAIMS)
    won = [stand.claim(member, item.inner, campaign_id=str(made.campaign_id)).json()["prize"] for item in items]
    office, path = Terminal(stand.home, stand.database_url), tmp_path / "record.ndjson"
    record = f"campaign record {made.campaign_id} --output {path}"
    assert office.refusal(record) == "CampaignNotRevealed"
    assert not path.exists()
    stand.run(reveal)
    assert office.ask(record)["claims"] == CLAIMS

    stranger, kept = Terminal(tmp_path / "nowhere", "sqlite:////nowhere/at.all"), tmp_path / "kept"
    _, gtin, _, serial = items[0].inner.split("/")[-4:]
    kept.write_text(f"01{gtin}21{serial[:14]}\n", encoding="ascii")
    verify = f"draw verify {path} --commitment {made.commitment.hex()}"
    checked = stranger.ask(f"{verify} --receipt {kept}")
    assert (checked["plays"], checked["receipts_found"], checked["commitment_is_the_published_one"]) == (12, 1, True)
    assert [prize["given"] for prize in checked["prizes"]] == [
        sum(prize["amount"] == amount for prize in won) for amount in (500, 10, 0)
    ]
    assert "12 plays" in stranger.run(verify).stdout
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    kept.write_text("".join(f"01{gtin}21{item.inner.split('/')[-1][:14]}\n" for item in items), encoding="ascii")
    assert stranger.refusal(f"{verify} --receipt {kept}") == "DrawRecordWrong"
    assert stranger.refusal(f"draw verify {path} --commitment {'00' * 32}") == "DrawRecordWrong"
