"""Chance that can be repeated: everything random that decides what happens comes from one seed."""

import logging
import random
import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import structlog
import uuid_utils.compat

from loyalty import webhooks
from loyalty.fulfilment import worker


@contextmanager
def seeded(seed: object) -> Iterator[random.Random]:
    """Ids, draws' seeds, numbers of cards and the worker's jitter follow from the seed; keys and nonces need not.

    Nothing is logged meanwhile.
    """
    chance = random.Random(f"fanxing {seed}")
    numbers = random.Random(f"ids {seed}")
    count = 0

    def next_id() -> uuid.UUID:
        nonlocal count
        count += 1
        # Ordered as real ones are: by the time of their making.
        return uuid.UUID(int=count << 80 | 7 << 76 | 2 << 62 | numbers.getrandbits(62))

    told = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with (
        patch.object(uuid_utils.compat, "uuid7", next_id),
        patch.object(secrets, "token_bytes", numbers.randbytes),
        patch.object(worker, "_chance", numbers),
        # Who listens is kept for a while by the real clock.
        patch.object(webhooks, "LISTENERS_CACHED_S", 0.0),
    ):
        try:
            yield chance
        finally:
            structlog.configure(**told)
