"""`python -m tests.offline_sdk.scanner.picture`: draw docs/pictures/scanner.svg anew, with the program's own screen."""

import io
import re
from datetime import UTC, datetime

from rich.console import Console

from offline_sdk.journal import Recorded, Seen
from offline_sdk.scanner.background import LinkState
from offline_sdk.scanner.counter import Shown, Tally
from offline_sdk.scanner.panel import PanelFace
from offline_sdk.scanner.show import Standing
from offline_sdk.scanner.trust import Judgement, TrustState
from offline_sdk.scanner.words import Language
from tests.offline_sdk.scanner.shop import GTIN, ROOT_FOLDER

PICTURE = ROOT_FOLDER / "docs" / "pictures" / "scanner.svg"
AT = 1_790_000_000
WIDTH = 80
LABEL = (GTIN, "00042000713905", 1, 7)


def draw() -> str:
    """Three verdicts, one below the other, the last with the state below it."""
    console = Console(
        file=io.StringIO(), record=True, width=WIDTH, height=30, force_terminal=True, color_system="standard"
    )
    genuine = Judgement("genuine", None, "", *LABEL, "Corner Dairy", 42, "fresh", AT)
    ask = Judgement("ask", "BundleExpired", "", *LABEL, "Corner Dairy", 42, "expired", AT - 31 * 86_400)
    refused = Judgement("refused", "BadSignature", "", *LABEL, None, 42, "fresh", AT)
    seen = Seen(3, (AT - 5_400) * 1_000, 1)
    for number, judged in enumerate((genuine, ask, refused), 640):
        face = PanelFace(Console(file=io.StringIO(), width=WIDTH, height=30), Language.ENGLISH)
        face.scan(Shown(judged, Recorded(number, AT * 1_000, seen if judged is genuine else None)))
        if judged is refused:
            trust = TrustState("dairy.example", 1, 42, AT - 11 * 3_600, AT + 30 * 86_400, "fresh")
            tally = Tally(datetime.fromtimestamp(AT, UTC).date(), 212, 1, 3, 9)
            face.stand(Standing(AT, tally, trust, LinkState("online", AT - 60), 2))
        console.print(face.picture())
        face.close()
    picture = console.export_svg(title="fanxing-scanner", unique_id="scanner")
    # Its fonts would come from another host; a document that is read offline has the reader's own.
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
