"""A whole installation with its server, for tests over real HTTP."""

from tests.contract.inhabited import world
from tests.stand import make_stand, stand, stand_kind, stands

__all__ = ["make_stand", "stand", "stand_kind", "stands", "world"]
