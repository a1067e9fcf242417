"""Turns a view into a whole HTML document, with the policy that lets its style sheets and nothing else run."""

from collections.abc import Iterable
from functools import partial
from typing import Any, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from loyalty.tier_words import yuan
from scan_api.web import paths, wording
from scan_api.web.style import STYLE, face_class, face_style, policy
from scan_api.web.views import FaceView, Language

# The colour of the sky over a verdict; the icon and the words say the same for those who see no colours.
_TONES = {
    "genuine": "good",
    "caution": "caution",
    "unknown": "danger",
    "revoked": "danger",
    "recalled": "danger",
    "voided": "danger",
    "held": "caution",
    "malformed": "neutral",
    "error": "neutral",
}

_ENVIRONMENT = Environment(
    loader=PackageLoader("scan_api.web", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.globals.update(
    style=Markup(STYLE),  # noqa: S704 -- our own file, and escaping would break the hash in the policy
    tones=_TONES,
    paths=paths,
    number=wording.number,
    isolated=wording.isolated,
    named=wording.named,
    face_class=face_class,
)


class Html(str):
    """A document, and the content security policy to send it with."""

    policy: str

    def __new__(cls, text: str, policy: str) -> "Html":
        html = super().__new__(cls, text)
        html.policy = policy
        return html


class View(Protocol):
    """What a template shows."""

    @property
    def language(self) -> Language: ...


def render(template: str, view: View, faces: Iterable[FaceView] = (), **more: Any) -> Html:
    """The document that a template makes of a view. `faces` are those of the cards on it."""
    language, faces_style = view.language, face_style(faces)
    text = _ENVIRONMENT.get_template(template).render(
        view=view,
        html_lang=wording.HTML_LANG[language],
        faces_style=Markup(faces_style),  # noqa: S704 -- nothing but checked colours
        say=partial(wording.say, language),
        prize=partial(wording.prize, language),
        odds=wording.odds,
        yuan=yuan,
        tries_left=partial(wording.tries_left, language),
        moment=partial(wording.moment, language),
        **more,
    )
    return Html(text, policy(faces_style))
