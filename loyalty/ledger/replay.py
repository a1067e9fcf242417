"""A member's points lots and what was used of them, made anew from his entries and compared with what is stored."""

import struct
import uuid
from heapq import heapify, heappop, heappush

from loyalty.ledger.chain import LINK_BYTES
from loyalty.ledger.reading import LOT, NEVER, UNDOING, USE

_ENTRY = struct.Struct(f">16sqqqq{LINK_BYTES}x")
_Lot = tuple[bytes, int, int, int, int]
"""The fields of `LOT`."""


class Replay:
    """Does with lots what `transfers.Posting` and `lots` do; when they expire is believed, for seals cover it."""

    def __init__(self, member: bytes, lots: bytes, uses: bytes, undoing: bytes) -> None:
        self._member, self._faults = member, list[str]()
        self._lots: dict[bytes, _Lot] = {lot[0]: lot for lot in LOT.iter_unpack(lots)}
        self._stored_uses = uses
        self._undone: dict[bytes, bytes] = dict(UNDOING.iter_unpack(undoing)) if undoing else {}
        self._left: dict[bytes, int] = {}
        # By transfer and lot: what was taken, and what came back.
        self._uses: dict[bytes, dict[bytes, list[int]]] = {}
        # A heap of the lots with points left, by expiry, and perhaps of some without; made when a debit comes.
        self._first: list[tuple[int, int, bytes]] | None = None

    def go_through(self, records: bytes) -> None:
        """The next entries of the member's points."""
        for transfer_id, amount, after, _, at in _ENTRY.iter_unpack(records):
            if amount > 0:
                new, left = amount, amount if after >= amount else max(after, 0)
                if self._undone and transfer_id in self._undone:
                    new, left = self._give_back(self._undone[transfer_id], amount, left)
                if new:
                    self._bring(transfer_id, new, left, at)
            elif (wanted := min(-amount, after - amount)) > 0:
                self._use(transfer_id, wanted)

    def _bring(self, lot_id: bytes, amount: int, left: int, at: int) -> None:
        lot = self._lots.get(lot_id)
        if lot is None or lot[1] != amount or lot[3] != at:
            made = "is missing" if lot is None else f"is not of the {amount} points that came in, or of their moment"
            self._faults.append(f"{self._named(lot_id)} {made}")
            lot = self._lots[lot_id] = (lot_id, amount, left, at, NEVER if lot is None else lot[4])
        self._left[lot_id] = left
        if left and self._first is not None:
            heappush(self._first, (lot[4], at, lot_id))

    def _use(self, transfer_id: bytes, wanted: int) -> None:
        left, used = self._left, dict[bytes, list[int]]()
        if self._undone and (brought := self._undone.get(transfer_id)) and left.get(brought):
            share = min(wanted, left[brought])
            left[brought] -= share
            wanted -= share
            used[brought] = [share, 0]
        if self._first is None:
            self._first = [self._position(lot_id) for lot_id, some in left.items() if some]
            heapify(self._first)
        first = self._first
        while wanted and first:
            lot_id = first[0][2]
            some = left[lot_id]
            if share := min(wanted, some):
                left[lot_id] = some - share
                wanted -= share
                used[lot_id] = [share, 0]
            if share == some:
                heappop(first)
        if used:
            self._uses[transfer_id] = used

    def _give_back(self, undone: bytes, amount: int, left: int) -> tuple[int, int]:
        # To the same lots, the latest to expire first; what of it paid a debt stays used.
        used = self._uses.get(undone, {})
        returned = min(sum(taken - back for taken, back in used.values()), amount)
        live = wanted = min(returned, left)
        for lot_id in sorted(used, key=self._position, reverse=True):
            use = used[lot_id]
            if share := min(use[0] - use[1], wanted):
                use[1] += share
                wanted -= share
                self._left[lot_id] += share
                if self._first is not None:
                    heappush(self._first, self._position(lot_id))
        return amount - returned, left - live

    def _position(self, lot_id: bytes) -> tuple[int, int, bytes]:
        lot = self._lots[lot_id]
        return lot[4], lot[3], lot_id

    def faults(self) -> list[str]:
        """How what is stored differs, in words."""
        made = self._left
        for lot_id, _, left, _, _ in self._lots.values():
            if made.get(lot_id) != left:
                should = (
                    "no entry brought it" if lot_id not in made else f"it has {left} left instead of {made[lot_id]}"
                )
                self._faults.append(f"{self._named(lot_id)}: {should}")
        for transfer_id, lot_id, amount, returned in USE.iter_unpack(self._stored_uses):
            taken, back = self._uses.get(transfer_id, {}).pop(lot_id, (0, 0))
            if (amount, returned) != (taken, back):
                self._faults.append(self._told(transfer_id, lot_id, (amount, returned), (taken, back)))
        for transfer_id, missing in self._uses.items():
            self._faults += [
                self._told(transfer_id, lot_id, (0, 0), (use[0], use[1])) for lot_id, use in missing.items()
            ]
        return self._faults

    def _told(self, transfer_id: bytes, lot_id: bytes, said: tuple[int, int], made: tuple[int, int]) -> str:
        return (
            f"{self._named(lot_id)}: transfer {uuid.UUID(bytes=transfer_id)} took {said[0]} of it, less {said[1]} that"
            f" came back, instead of {made[0]} less {made[1]}"
        )

    def _named(self, lot_id: bytes) -> str:
        return f"points lot {uuid.UUID(bytes=lot_id)} of member {uuid.UUID(bytes=self._member)}"
