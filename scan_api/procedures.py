"""The procedures that a database must know before a server starts on it; `fanxing init` makes them."""

from scan_api import claims, item_view, thing_acts
from scan_api.provenance import history, trace_step

PROCEDURES = (
    *(claims.PROCEDURE, item_view.SCAN, item_view.LOOK, history.HISTORY, trace_step.STEP),
    *thing_acts.PROCEDURES,
)
