"""The states of an order, the words that move it, and where its value lies in each state."""

from collections.abc import Mapping
from enum import StrEnum


class OrderState(StrEnum):
    """How far an order has come."""

    CREATED = "created"
    """Not yet sent."""
    SUBMITTED = "submitted"
    """Sent; the answer is awaited, or was lost with the worker that awaited it."""
    ACCEPTED = "accepted"
    """The provider has it."""
    PENDING = "pending"
    """The provider works on it."""
    UNKNOWN = "unknown"
    """Sent, and nobody knows what became of it. It is asked for till somebody does, and never ordered anew."""
    AWAIT_USER = "await_user"
    """The member has to confirm: a cash red packet, for example."""
    COMPLETED = "completed"
    """Arrived. The provider may still reverse it."""
    REVERSED = "reversed"
    """Taken back, or let lapse by the member."""
    FAILED = "failed"
    """Refused for good: not a number of this carrier, for example."""


class Word(StrEnum):
    """What is told of an order. The first four are our own findings, the others the provider's word."""

    SENT = "sent"
    """A request is about to leave."""
    NO_ANSWER = "no_answer"
    """Time-out, broken connection, server error or nonsense: the order may have been received."""
    NEVER_RECEIVED = "never_received"
    """Asked for the order, the provider says that it has none of this id."""
    NO_NUMBER = "no_number"
    """There is no phone number to send it to: the member was erased before the provider had the order."""
    ACCEPTED = "accepted"
    PENDING = "pending"
    AWAIT_USER = "await_user"
    COMPLETED = "completed"
    REVERSED = "reversed"
    FAILED = "failed"


class Teller(StrEnum):
    """Through whom a word came."""

    WORKER = "worker"
    CALLBACK = "callback"
    STATEMENT = "statement"
    OPERATOR = "operator"


class Place(StrEnum):
    """Where the value of an order lies."""

    ON_ITS_WAY = "on_its_way"
    """In the member's PENDING account."""
    ARRIVED = "arrived"
    """In the member's DELIVERED account."""
    RETURNED = "returned"
    """Back where it came from."""


_ENDS = {Word.COMPLETED: OrderState.COMPLETED, Word.REVERSED: OrderState.REVERSED, Word.FAILED: OrderState.FAILED}
_ON_THE_WAY = {
    Word.ACCEPTED: OrderState.ACCEPTED,
    Word.PENDING: OrderState.PENDING,
    Word.AWAIT_USER: OrderState.AWAIT_USER,
}

NEXT: Mapping[OrderState, Mapping[Word, OrderState]] = {
    # The provider may know an order that we think unsent: our database was restored from a backup.
    OrderState.CREATED: {
        Word.SENT: OrderState.SUBMITTED,
        Word.NO_NUMBER: OrderState.FAILED,
        **_ON_THE_WAY,
        **_ENDS,
    },
    OrderState.SUBMITTED: {
        Word.NO_ANSWER: OrderState.UNKNOWN,
        Word.NEVER_RECEIVED: OrderState.UNKNOWN,
        Word.NO_NUMBER: OrderState.FAILED,
        **_ON_THE_WAY,
        **_ENDS,
    },
    OrderState.UNKNOWN: {
        # Again, under the same id; the worker does so only after the provider said NEVER_RECEIVED.
        Word.SENT: OrderState.SUBMITTED,
        Word.NO_NUMBER: OrderState.FAILED,
        **_ON_THE_WAY,
        **_ENDS,
    },
    # A provider that had an order and now says that it never did has not refused it: nobody knows.
    OrderState.ACCEPTED: {
        Word.NEVER_RECEIVED: OrderState.UNKNOWN,
        Word.PENDING: OrderState.PENDING,
        Word.AWAIT_USER: OrderState.AWAIT_USER,
        **_ENDS,
    },
    OrderState.PENDING: {
        Word.NEVER_RECEIVED: OrderState.UNKNOWN,
        Word.AWAIT_USER: OrderState.AWAIT_USER,
        **_ENDS,
    },
    OrderState.AWAIT_USER: {
        Word.NEVER_RECEIVED: OrderState.UNKNOWN,
        Word.PENDING: OrderState.PENDING,
        **_ENDS,
    },
    # "Failed" after "completed" takes back what had arrived, whatever the provider calls it.
    OrderState.COMPLETED: {Word.REVERSED: OrderState.REVERSED, Word.FAILED: OrderState.REVERSED},
    # A provider that delivers after all what it had refused or reversed: the member has it, and the books must say so.
    OrderState.REVERSED: {Word.COMPLETED: OrderState.COMPLETED},
    OrderState.FAILED: {Word.COMPLETED: OrderState.COMPLETED},
}
"""The state that each word leads to. A word that is missing leaves the order where it is."""

OPEN = frozenset(OrderState) - {OrderState.COMPLETED, OrderState.REVERSED, OrderState.FAILED}
"""The states in which a worker still asks."""


def place_of(state: OrderState) -> Place:
    """Where the value of an order in this state lies."""
    if state in OPEN:
        return Place.ON_ITS_WAY
    return Place.ARRIVED if state is OrderState.COMPLETED else Place.RETURNED
