"""One tree of errors for the server: what was wrong, what to do, and a code that never changes.

Domain packages subclass one of the kinds below. A kind says what sort of refusal it is; which HTTP status that
becomes is decided in one table, `scan_api.errors`.
"""


class FanxingError(Exception):
    """Base of every refusal. `code` is part of the public interface: callers branch on it, so it never changes."""

    code: str = "Internal"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Invalid(FanxingError):
    """The input is not acceptable, whoever sends it and whenever."""

    code = "Invalid"


class Unauthenticated(FanxingError):
    """The caller did not prove who he is."""

    code = "Unauthenticated"


class Forbidden(FanxingError):
    """The caller is known but may not do this."""

    code = "Forbidden"


class NotFound(FanxingError):
    """The thing asked for does not exist (or the caller may not know that it does)."""

    code = "NotFound"


class Conflict(FanxingError):
    """The input is fine but the present state forbids it."""

    code = "Conflict"


class TooMany(FanxingError):
    """A limit in time was reached; the same call may succeed later."""

    code = "TooMany"


class Unavailable(FanxingError):
    """Something this call needs is missing or down; nothing was changed."""

    code = "Unavailable"


class ConfigurationError(Unavailable):
    """An environment variable is missing or wrong; the message names it."""

    code = "ConfigurationError"
