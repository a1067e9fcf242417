"""A member's export tells the codes of his benefits as his page shows them, and none that he has not asked for."""

from loyalty import benefits, member_export
from loyalty.benefits import BenefitKind
from tests.loyalty.benefits.conftest import House, MakeBenefit
from tests.loyalty.conftest import NOW, MakeMember


async def test_an_export_tells_codes_as_the_member_sees_them(
    house: House, make_benefit: MakeBenefit, make_member: MakeMember
) -> None:
    ann, ben = await make_member(1), await make_member(2)
    coupon = await make_benefit()
    pool = await make_benefit(kind=BenefitKind.POOL)
    await house.fill_pool(pool, ["POOL-SEEN", "POOL-COVERED", "POOL-OF-BEN"])
    own, seen, covered = [await house.grant(ann, one) for one in (coupon, pool, pool)]
    others = await house.grant(ben, pool)
    shown = await house.call(benefits.show, ann, seen.held_id, NOW)
    await house.call(benefits.show, ben, others.held_id, NOW)
    await house.redeem(own.code)

    async with house.database.reading() as session:
        told = [
            row async for section, row in member_export.export(session, house.vault, ann) if section == "benefit_code"
        ]
    visible = [one for one in await house.held(ann) if one.code is not None]
    assert covered.held_id not in {one.held_id for one in visible}
    assert {row["held_id"]: row["code"] for row in told} == {str(one.held_id): one.code for one in visible}
    assert {row["code"] for row in told} == {own.code, shown.code}
