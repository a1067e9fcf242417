"""Words for tiers: why a card is where it is and what the next step takes, in Chinese and English."""

from loyalty.experience import Figures
from loyalty.tier_rules import Tier

_FEN_A_YUAN = 100


def yuan(fen: int) -> str:
    """An amount for people: ¥1,000 or ¥420.50."""
    whole, rest = divmod(fen, _FEN_A_YUAN)
    return f"¥{whole:,}" + (f".{rest:02d}" if rest else "")


def explanation(language: str, figures: Figures, window_months: int, following: Tier | None) -> str:
    """What counts now, and what the following tier asks for beyond it; None: this is the highest.

    For example "3 purchases and ¥420 in 12 months; Gold needs 6 purchases and ¥1,000: 3 purchases and ¥580 to go".
    """
    if following is None:
        shown = _parts(language, figures, figures)
        return _now(language, shown, window_months) + ("；已是最高等级" if language == "zh" else "; the highest tier")
    asked = following.needs
    missing = figures.less(asked)
    have = _parts(language, figures, asked)
    need = _parts(language, asked, asked)
    to_go = _parts(language, missing, missing)
    name = following.name(language)
    if language == "zh":
        joined = " 或 " if following.any_of else "、"
        return f"{_now(language, have, window_months)}；{name}需要{joined.join(need)}：还差{joined.join(to_go)}"
    last = "or" if following.any_of else "and"
    return f"{_now(language, have, window_months)}; {name} needs {_listed(need, last)}: {_listed(to_go, last)} to go"


def _now(language: str, shown: list[str], window_months: int) -> str:
    if language == "zh":
        return f"近 {window_months} 个月{'、'.join(shown) or '没有消费'}"
    months = "month" if window_months == 1 else "months"
    return f"{_listed(shown, 'and') or 'no purchases'} in {window_months} {months}"


def _listed(parts: list[str], last: str) -> str:
    *others, final = parts or [""]
    return f"{', '.join(others)} {last} {final}" if others else final


def _parts(language: str, figures: Figures, where: Figures) -> list[str]:
    """The figures of which `where` is not zero."""
    chinese = language == "zh"
    parts = []
    if where.purchases:
        count = figures.purchases
        parts.append(f"消费 {count} 次" if chinese else f"{count} purchase{'' if count == 1 else 's'}")
    if where.fen:
        parts.append(f"消费额 {yuan(figures.fen)}" if chinese else yuan(figures.fen))
    if where.experience:
        parts.append(f"经验值 {figures.experience:,}" if chinese else f"{figures.experience:,} experience")
    return parts
