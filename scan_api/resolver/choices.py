"""Choices: which of the links on a Digital Link's levels a wish leads to.

Source: GS1-Conformant Resolver Standard 1.2, 2.5.8, 2.5.9 and 2.6.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kit.errors import NotFound
from scan_api.resolver import link_types
from scan_api.resolver.levels import Level
from scan_api.resolver.links import LinkRole
from scan_api.resolver.wishes import Fit, Wish


class LinkTypeUnavailable(NotFound):
    code = "LinkTypeUnavailable"


class NothingLinked(NotFound):
    code = "NothingLinked"


@dataclass(frozen=True, slots=True)
class Offered:
    """A link as it is offered to one request: its address has no variables any more."""

    link_type: str
    href: str
    title: str
    languages: tuple[str, ...] = ()
    media_type: str | None = None
    contexts: tuple[str, ...] = ()
    role: LinkRole = LinkRole.PLAIN

    @property
    def is_particular(self) -> bool:
        """Whether something says for whom it is."""
        return bool(self.languages or self.media_type or self.contexts)


@dataclass(frozen=True, slots=True)
class Shelf:
    """A level's links, oldest first, and what the level is called, if that is known."""

    level: Level
    links: tuple[Offered, ...]
    description: str | None = None

    @property
    def default(self) -> Offered | None:
        """The one that the resolver leads to when nothing speaks for another: of several, the last. Without any the
        first variant stands in."""
        defaults = [link for link in self.links if link.role is LinkRole.DEFAULT]
        if defaults:
            return defaults[-1]
        return next((link for link in self.links if link.role is LinkRole.VARIANT), None)

    @property
    def variants(self) -> tuple[Offered, ...]:
        """The default's variants, and the default itself where it is particular; empty where there are none."""
        default = self.default
        own = tuple(link for link in self.links if link.role is LinkRole.VARIANT and link is not default)
        return (default, *own) if own and default is not None and default.is_particular else own

    def of_type(self, name: str) -> tuple[Offered, ...]:
        """Its links of a type, by its bare name."""
        if name == link_types.DEFAULT:
            return (self.default,) if self.default is not None else ()
        if name == link_types.DEFAULT_MULTI:
            return self.variants
        return tuple(link for link in self.links if link.link_type == name)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a wish leads to: one link, or several that fit it equally well; all of one type and level."""

    level: Level
    link_type: str
    links: tuple[Offered, ...]


def choose(shelves: Sequence[Shelf], wish: Wish) -> Choice:
    """The links that a wish leads to, from levels in their order, the finest first.

    A type that is asked for is looked for from the finest level up, and the first level that has it decides. Without a
    type the first level that has a default decides, and one of its variants is taken instead where the wish meets it
    better. Raises LinkTypeUnavailable, and NothingLinked where there is no default either.
    """
    if wish.link_type is not None:
        for shelf in shelves:
            if found := shelf.of_type(wish.link_type):
                return Choice(shelf.level, wish.link_type, _best(found, wish))
        if any(shelf.links for shelf in shelves):
            raise LinkTypeUnavailable(
                "there is no link of this type", hint="?linkType=linkset lists the links that there are."
            )
    for shelf in shelves if wish.link_type is None else ():
        if (default := shelf.default) is not None:
            return Choice(shelf.level, link_types.DEFAULT, (_variant(shelf, default, wish),))
    raise NothingLinked("nothing is linked to this", hint="Only the brand that it belongs to can add links.")


def _variant(shelf: Shelf, default: Offered, wish: Wish) -> Offered:
    candidates = shelf.variants
    if not candidates:
        return default
    best = _best(candidates, wish)
    # Undecided, or not better than the default: the default is there for this (2.6.1).
    return best[0] if len(best) == 1 and _fit(best[0], wish) > _fit(default, wish) else default


def _best(links: Sequence[Offered], wish: Wish) -> tuple[Offered, ...]:
    """Those that fit best, by media type, then language, then context (2.6.3)."""
    if len(links) == 1:
        return tuple(links)
    fits = [_fit(link, wish) for link in links]
    best = max(fits)
    return tuple(link for link, fit in zip(links, fits, strict=True) if fit == best)


def _fit(link: Offered, wish: Wish) -> tuple[int, int, Fit, Fit, Fit]:
    """More is better: first that nothing in the link is against the wish, then how well it is met."""
    fits = wish.media_fit(link.media_type), wish.language_fit(link.languages), wish.context_fit(link.contexts)
    refused, missed = sum(fit.grade < 0 for fit in fits), sum(fit.grade == 0 for fit in fits)
    return -refused, -missed, *fits
