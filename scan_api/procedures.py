"""The procedures that a database must know before a server starts on it; `fanxing init` makes them."""

from scan_api import claims, item_view

PROCEDURES = (claims.PROCEDURE, item_view.SCAN, item_view.LOOK)
