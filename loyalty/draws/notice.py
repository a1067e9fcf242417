"""The public notice of a draw: quantities and odds, in numbers and in words, before anybody plays."""

from fractions import Fraction
from typing import Any

from kit.clock import CHINA, iso
from loyalty.draws import record
from loyalty.draws.catalogue import Draw, closing_of, terms_of
from loyalty.draws.terms import DrawPrize, Form, Price, Terms

_PERCENT_PLACES = 6


def published(draw: Draw) -> dict[str, Any]:
    """Everything that anybody may know of a draw now, as JSON: the seed only after it was revealed."""
    terms, closing = terms_of(draw), closing_of(draw)
    return {
        "draw_id": str(draw.draw_id),
        "state": draw.state,
        "published_at": iso(draw.created_at),
        "commitment": draw.commitment.hex(),
        "terms": terms.document(),
        "odds": odds(terms),
        "notice": {"zh": _in_chinese(terms), "en": _in_english(terms)},
        "closing": closing,
        "closing_digest": record.closing_digest(closing).hex() if closing else None,
        "seed": draw.seed.hex() if draw.seed else None,
    }


def odds(terms: Terms) -> list[dict[str, Any]]:
    """Of each prize: name, quantity and odds, exactly as a fraction and rounded as a percentage.

    Of a deck these are the odds of a ticket at the start; each later one's follow from what was dealt.
    """
    total = sum(terms.weights)
    return [
        {
            "name": {"zh": entry.name.zh, "en": entry.name.en},
            "value_fen": entry.value_fen,
            "quantity": entry.quantity,
            "odds": {"of": weight, "in": total},
            "percent": _percent(weight, total),
        }
        for entry, weight in zip(terms.prizes, terms.weights, strict=True)
    ]


def _percent(weight: int, total: int) -> str:
    return f"{float(Fraction(100 * weight, total)):.{_PERCENT_PLACES}f}".rstrip("0").rstrip(".")


def _yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02}"


def _when(terms: Terms) -> tuple[str, str]:
    begins, ends = (moment.astimezone(CHINA) for moment in (terms.opens_at, terms.closes_at))
    return f"{begins:%Y-%m-%d %H:%M}", f"{ends:%Y-%m-%d %H:%M}"


def _in_chinese(terms: Terms) -> list[str]:
    begins, ends = _when(terms)
    lines = [f"{terms.title.zh}：{begins} 至 {ends}（北京时间）。"]
    for entry, weight in zip(terms.prizes, terms.weights, strict=True):
        number = "数量不限" if entry.quantity is None else f"共 {entry.quantity} 份"
        percent = _percent(weight, sum(terms.weights))
        lines.append(f"{entry.name.zh}：{number}，价值 {_yuan(entry.value_fen)} 元，概率 {percent}%。")
    lines.append(_form_in_chinese(terms))
    price = {
        Price.FREE: "参加免费。",
        Price.POINTS: f"每次参加使用 {terms.price_amount} 积分。",
        Price.CHANCES: f"每次参加使用 {terms.price_amount} 次机会。",
    }
    limits = terms.limits
    lines.append(price[terms.price])
    if limits.member is not None:
        lines.append(f"每位会员最多参加 {limits.member} 次。")
    if limits.member_day is not None:
        lines.append(f"每位会员每天最多参加 {limits.member_day} 次。")
    if limits.device_day is not None:
        lines.append(f"每台设备每天最多参加 {limits.device_day} 次。")
    lines.append("活动结束后公布随机种子和全部记录，任何人都可以重新计算每一次结果。")
    return lines


def _form_in_chinese(terms: Terms) -> str:
    if terms.form is Form.DECK:
        return f"共 {sum(terms.weights)} 张，开始前已洗好，依次发出，发完为止；概率为开始时的概率。"
    if terms.consolation is None:
        return "每次参加的概率相同。"
    return f"每次参加的概率相同；奖品发完后，抽中该奖品者得到“{_consolation(terms).name.zh}”。"


def _in_english(terms: Terms) -> list[str]:
    begins, ends = _when(terms)
    lines = [f"{terms.title.en}: {begins} to {ends}, Beijing time."]
    for entry, weight in zip(terms.prizes, terms.weights, strict=True):
        number = "unlimited" if entry.quantity is None else f"{entry.quantity} in all"
        percent = _percent(weight, sum(terms.weights))
        lines.append(f"{entry.name.en}: {number}, worth ¥{_yuan(entry.value_fen)}, odds {percent}%.")
    lines.append(_form_in_english(terms))
    price = {
        Price.FREE: "A play is free.",
        Price.POINTS: f"A play costs {terms.price_amount} points.",
        Price.CHANCES: f"A play costs {terms.price_amount} chances.",
    }
    limits = terms.limits
    lines.append(price[terms.price])
    if limits.member is not None:
        lines.append(f"A member plays {limits.member} times at most.")
    if limits.member_day is not None:
        lines.append(f"A member plays {limits.member_day} times a day at most.")
    if limits.device_day is not None:
        lines.append(f"A device plays {limits.device_day} times a day at most.")
    lines.append("After the end the seed and every play are published, and anybody can recompute every outcome.")
    return lines


def _form_in_english(terms: Terms) -> str:
    if terms.form is Form.DECK:
        return (
            f"{sum(terms.weights)} tickets, shuffled before the start and dealt in order until none is left; "
            "the odds are those of the start."
        )
    if terms.consolation is None:
        return "Every play has the same odds."
    return (
        f"Every play has the same odds; who draws a prize that is used up gets “{_consolation(terms).name.en}” instead."
    )


def _consolation(terms: Terms) -> DrawPrize:
    assert terms.consolation is not None
    return terms.prizes[terms.consolation]
