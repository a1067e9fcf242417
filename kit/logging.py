"""Structured logs to standard error, one JSON object a line, with secrets taken out on the way."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

# A signature inside a code text is 155 digits. An inner code is a secret, so no run of digits that long is ever logged,
# whatever message it came in with.
_CODE_LIKE = re.compile(r"[0-9]{100,}")
_SECRET_NAMES = frozenset({"authorization", "code_text", "cookie", "one_time_code", "passphrase", "phone", "token"})
_REMOVED = "[removed]"


def scrub(_logger: Any, _method: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace secret fields, and any text that could hold a code's signature, by a marker."""
    for name, value in record.items():
        if name in _SECRET_NAMES:
            record[name] = _REMOVED
        elif isinstance(value, str):
            record[name] = _CODE_LIKE.sub(_REMOVED, value)
    return record


def configure(level: str) -> None:
    """Set up structlog, and send what libraries log through the standard module the same way."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        scrub,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(ensure_ascii=False)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every URL
