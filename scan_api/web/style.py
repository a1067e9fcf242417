"""The style sheets of the shopper's pages, and the content security policy that lets them and nothing else run."""

import re
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from importlib.resources import files

from scan_api.web.views import HOUSE_FACE, FaceView

STYLE = files("scan_api.web").joinpath("style.css").read_text(encoding="utf-8")
_COLOUR = re.compile(r"#[0-9a-f]{6}")


def face_class(face: FaceView) -> str:
    """The class of cards with this face; empty for the house's own, which the one style sheet has."""
    if face == HOUSE_FACE:
        return ""
    return "f" + sha256(" ".join((*face.colours, face.text_colour)).encode()).hexdigest()[:8]


def face_style(faces: Iterable[FaceView]) -> str:
    """The style sheet of cards whose colours their brands chose; empty when there are none.

    A style attribute would have to be let in for everybody, so the colours stand in a sheet with a hash of its own.
    """
    return "".join(sorted({_rule(face) for face in faces if face != HOUSE_FACE}))


def _rule(face: FaceView) -> str:
    if not all(_COLOUR.fullmatch(colour) for colour in (*face.colours, face.text_colour)):
        raise ValueError("a colour is #rrggbb")
    stops = ",".join(face.colours if len(face.colours) > 1 else face.colours * 2)
    return f".{face_class(face)}{{background:linear-gradient(150deg,{stops});color:{face.text_colour}}}"


def policy(*styles: str) -> str:
    """The policy of a page with these style sheets besides the one of all pages.

    The browser hashes exactly what stands between <style> and </style>: the templates insert the sheets untouched.
    """
    hashes = " ".join(f"'sha256-{_hash(style)}'" for style in (STYLE, *styles) if style)
    return (
        f"default-src 'none'; style-src {hashes}; img-src 'self' data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def _hash(style: str) -> str:
    return b64encode(sha256(style.encode("utf-8")).digest()).decode("ascii")


CONTENT_SECURITY_POLICY = policy()
