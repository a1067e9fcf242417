"""Identifiers: time-ordered UUIDs for rows, derived UUIDs for things that must have the same id on every try."""

import uuid
from datetime import datetime

import uuid_utils.compat

_NAMESPACE = uuid.UUID("0d6a5f0e-5c0f-5d52-9d7e-6f1d6a1c2b10")  # fixed for ever: derived ids are stored


def new_id() -> uuid.UUID:
    """A new UUID version 7 (RFC 9562, 5.7): unique without coordination, and near its neighbours in an index."""
    return uuid_utils.compat.uuid7()


def id_at(moment: datetime) -> uuid.UUID:
    """A new UUID version 7 of a given moment, since 1970, instead of now."""
    # RFC 9562, 5.7: the first 48 bits are unix milliseconds.
    return uuid.UUID(int=int(moment.timestamp() * 1000) << 80 | new_id().int & (1 << 80) - 1)


def derived_id(*parts: object) -> uuid.UUID:
    """The UUID version 5 (RFC 9562, 5.5) of the parts: the same parts always give the same id."""
    return uuid.uuid5(_NAMESPACE, "\x1f".join(str(part) for part in parts))
