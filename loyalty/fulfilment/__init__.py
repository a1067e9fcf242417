"""Fulfilment: mobile data and cash that members won, ordered from providers and settled exactly once.

An order has one id for ever, and its provider is asked under that id only. States in `states`, a step with its transfer
in `steps`, the worker in `worker`, signed callbacks in `callbacks`, the daily comparison in `reconciliation`.
"""

from loyalty.fulfilment.orders import (
    PROVIDER_OF,
    SANDBOX,
    Attention,
    FulfilmentOrderUnknown,
    NewOrder,
    Order,
    OrderKind,
    OrderStep,
    append_only_ddl,
    find,
    listed,
    orders_of,
    payload_of,
    place,
    steps_of,
    topic_of,
)
from loyalty.fulfilment.providers import HttpProvider, Provider, SandboxProvider, http_providers, providers_of
from loyalty.fulfilment.reconciliation import Difference, reconcile
from loyalty.fulfilment.states import OPEN, OrderState, Teller, Word
from loyalty.fulfilment.steps import Effect, OrderNotRepeatable, Outcome, Report, flag, repeat, settle, take
from loyalty.fulfilment.worker import Health, Observer, Worker, backoff, health, run

__all__ = [
    "OPEN",
    "PROVIDER_OF",
    "SANDBOX",
    "Attention",
    "Difference",
    "Effect",
    "FulfilmentOrderUnknown",
    "Health",
    "HttpProvider",
    "NewOrder",
    "Observer",
    "Order",
    "OrderKind",
    "OrderNotRepeatable",
    "OrderState",
    "OrderStep",
    "Outcome",
    "Provider",
    "Report",
    "SandboxProvider",
    "Teller",
    "Word",
    "Worker",
    "append_only_ddl",
    "backoff",
    "find",
    "flag",
    "health",
    "http_providers",
    "listed",
    "orders_of",
    "payload_of",
    "place",
    "providers_of",
    "reconcile",
    "repeat",
    "run",
    "settle",
    "steps_of",
    "take",
    "topic_of",
]
