"""Identifiers: time-ordered UUIDs for rows, derived UUIDs for things that must have the same id on every try."""

import uuid

import uuid_utils.compat

_NAMESPACE = uuid.UUID("0d6a5f0e-5c0f-5d52-9d7e-6f1d6a1c2b10")  # fixed for ever: derived ids are stored


def new_id() -> uuid.UUID:
    """A new UUID version 7 (RFC 9562, 5.7): unique without coordination, and near its neighbours in an index."""
    return uuid_utils.compat.uuid7()


def derived_id(*parts: object) -> uuid.UUID:
    """The UUID version 5 (RFC 9562, 5.5) of the parts: the same parts always give the same id."""
    return uuid.uuid5(_NAMESPACE, "\x1f".join(str(part) for part in parts))
