"""Which of the two languages a browser's Accept-Language header asks for (RFC 9110, section 12.5.4)."""

from scan_api.web.views import Language

# Longer headers are noise or an attack; a browser sends well under 200 characters.
_HEADER_CHARS_MAX = 1_000


def choose(accept_language: str | None) -> Language:
    """The language with the greater weight, the one named first where they tie.

    The product serves Chinese brands, so a missing header means Chinese; a reader who lists only, say, French is more
    likely to read English. Every Chinese variant gets the one Chinese there is.
    """
    weights: dict[str, float] = {}
    for part in (accept_language or "")[:_HEADER_CHARS_MAX].split(","):
        tag, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if tag:
            primary = tag.split("-", 1)[0]
            weights[primary] = max(_weight(parameters), weights.get(primary, 0.0))
    if not weights:
        return "zh"

    named: list[Language] = ["zh", "en"]
    if "en" in weights and next(tag for tag in weights if tag in named) == "en":
        named.reverse()
    # "*" speaks for the languages that the header does not name.
    anything = weights.get("*", 0.0)
    best = max(named, key=lambda language: weights.get(language, anything))
    return best if weights.get(best, anything) > 0 else "en"


def _weight(parameters: list[str]) -> float:
    """The weight in 0..1; a weight that cannot be read counts as 0, so that nonsense never outranks a plain wish."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if 0.0 <= weight <= 1.0 else 0.0
    return 1.0
