"""Pictures of inspected pages: each symbol in a box, green where all is well and red where not."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from codes.inspection import Finding, Inspected
from codes.inspection.grades import Grade
from codes.inspection.scans import Page
from codes.qr import QUIET_ZONE_MODULES

_GOOD, _POOR, _BAD = (0, 150, 60), (230, 150, 0), (220, 0, 30)
_CAPTION_PX_MIN = 10


def draw(page: Page, found: Sequence[Inspected]) -> Image.Image:
    """The page in colour: green boxes for genuine codes, amber for poorly printed ones, red with a word for the rest.

    A symbol without a box was not found.
    """
    picture = Image.fromarray(page.grey).convert("RGB")
    pen = ImageDraw.Draw(picture)
    for one in found:
        module = sum(one.symbol.sides) / 4 / one.symbol.modules
        x, y = one.symbol.centre
        grow = 1 + QUIET_ZONE_MODULES / one.symbol.modules
        corners = [(x + (corner[0] - x) * grow, y + (corner[1] - y) * grow) for corner in one.symbol.corners]
        colour = _colour(one)
        pen.line([*corners, *corners[:2]], fill=colour, width=max(2, round(module)), joint="curve")
        if one.finding is not Finding.GENUINE:
            size = max(_CAPTION_PX_MIN, round(4 * module))
            pen.text((x, y), one.finding.value, _BAD, anchor="mm", font_size=size, stroke_width=3, stroke_fill="white")
    return picture


def _colour(one: Inspected) -> tuple[int, int, int]:
    if one.finding is not Finding.GENUINE or one.quality is None:
        return _BAD
    quality = one.quality
    poor = quality.grade > Grade.B or quality.is_small or not quality.quiet_zone or one.symbol.helped
    return _POOR if poor else _GOOD
