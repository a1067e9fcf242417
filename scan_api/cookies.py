"""Cookies that this server sets, read back from a request."""

from fastapi import Request


def cookie_of(request: Request, name: str) -> str | None:
    """The cookie's value, the first of that name; None when there is none. Ours need no unquoting.

    The standard library's parser, which the framework asks, unquotes in quadratic time before Python 3.11.10
    (CVE-2024-7592): one header would stall everybody for seconds.
    """
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            found, _, value = pair.strip().partition("=")
            if found == name:
                return value
    return None
