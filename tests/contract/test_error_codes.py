"""Error codes are part of the interface: callers branch on them."""

from collections.abc import Iterator
from pathlib import Path

import codes.exports.archive  # noqa: F401 - imported only by the kinds that need it
import scan_api.app
import scan_api.demo.play  # noqa: F401 - with the one above and all commands, every module that defines an error
from kit.errors import FanxingError
from scan_api.commands import main
from scan_api.errors import status_of
from scan_api.scans import CodeRefused

main.build()

# One code a line, sorted. A line may be added. It may never be changed or removed: somebody's till or app knows it.
PINNED = (Path(__file__).parent / "error_codes.txt").read_text(encoding="ascii").split()

# Its codes are those of the verdict that refused the code text.
TAKES_ITS_CODE_FROM_THE_VERDICT = CodeRefused


def family(kind: type[FanxingError]) -> Iterator[type[FanxingError]]:
    for child in kind.__subclasses__():
        yield child
        yield from family(child)


def test_every_code_is_pinned() -> None:
    assert sorted({kind.code for kind in family(FanxingError)}) == PINNED


def test_a_code_is_its_classs_name() -> None:
    kinds = [kind for kind in family(FanxingError) if kind is not TAKES_ITS_CODE_FROM_THE_VERDICT]
    assert [kind for kind in kinds if kind.code != kind.__name__] == []


def test_no_two_errors_share_a_code() -> None:
    codes = [kind.code for kind in family(FanxingError) if kind is not TAKES_ITS_CODE_FROM_THE_VERDICT]
    assert len(codes) == len(set(codes))


def test_every_refusal_has_a_status_of_its_kind() -> None:
    for kind in family(FanxingError):
        if kind is TAKES_ITS_CODE_FROM_THE_VERDICT:
            continue
        refusal = kind.__new__(kind)
        assert 400 <= status_of(refusal) < 600, kind
