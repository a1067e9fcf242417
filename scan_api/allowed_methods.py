"""Which methods an address takes, over all routes that share it (RFC 9110, 10.2.1 and 15.5.6).

The framework knows those of one route at a time, and the route that takes every path that nobody else did hides the
others from it.
"""

import re
from functools import cache

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path

EVERYWHERE = "/{path:path}"
"""The route for what no other takes."""


def methods_of(app: FastAPI, path: str) -> list[str]:
    """The methods in alphabetical order; none where nothing is."""
    return sorted({method for pattern, methods in _routes(app) if pattern.match(path) for method in methods})


@cache  # an application's routes are made once
def _routes(app: FastAPI) -> list[tuple[re.Pattern[str], frozenset[str]]]:
    return [
        (compile_path(context.path)[0], frozenset(context.methods))
        for context in iter_route_contexts(app.routes)
        if context.path and context.path != EVERYWHERE and context.methods
    ]
