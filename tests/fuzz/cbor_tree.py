"""CBOR tree: encoded CBOR as nodes that keep the form they were written in, to be changed and written again.

Not a decoder to rely on: it knows structure, never meaning, so that a change lands in a field and not in its length.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE = range(8)
INDEFINITE: Final = 31
_BREAK: Final = b"\xff"
_WIDTHS: Final = (24, 25, 26, 27)
_DEPTH_MAX: Final = 40
_BORDERS: Final = (
    0, 1, 2, 3, 7, 16, 17, 22, 23, 24, 255, 256, 65_535, 65_536, 99_999, 100_000, 999_999_999, 10**9, 2**32 - 1, 2**32,
    2**53 - 1, 2**53, 253_402_300_799, 253_402_300_800, 2**63, 2**64 - 1,
)  # fmt: skip
_TEXTS: Final = (
    b"", b"0", b"9", b"690123456", b"06901234567892", b"09506000134352", b"vectors.example", b"a" * 101, b"1" * 12,
    b"1" * 13, b"\x00", b"\x1b[31m", b"\xe2\x80\xae", b"\xff", b"\xed\xa0\x80", "٣".encode(), "繁星".encode(),
)  # fmt: skip
_ATOMS: Final = (b"\xf4", b"\xf5", b"\xf6", b"\xf7", b"\xf9\x3c\x00", b"\xfb\x7f\xf8\0\0\0\0\0\0", b"\xf8\xff", b"\x80")
_TAGS: Final = (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260, 1004, 43_000, 55_799, 2**63)


@dataclass(slots=True, eq=False)
class Node:
    """One data item: its major type, its argument, its content (bytes or child nodes), and how its head is written."""

    major: int
    argument: int = 0
    data: bytes = b""
    children: list["Node"] = field(default_factory=list)
    form: int | None = None
    """Additional information of the head (RFC 8949, 3) where it is not the shortest."""


def parse(data: bytes) -> Node:
    """Read one item and nothing after it; raises ValueError."""
    node, at = _parse(data, 0, 0)
    if at != len(data):
        raise ValueError("bytes after the item")
    return node


def write(node: Node) -> bytes:
    """The bytes of this item, in the form that it asks for."""
    if node.major in (BYTES, TEXT):
        return _head(node.major, len(node.data), node.form) + node.data
    if node.major in (ARRAY, MAP):
        content = b"".join(map(write, node.children))
        if node.form == INDEFINITE:
            return bytes([node.major << 5 | INDEFINITE]) + content + _BREAK
        return _head(node.major, len(node.children) // (1 + (node.major == MAP)), node.form) + content
    if node.major == SIMPLE:
        return node.data
    return _head(node.major, node.argument, node.form) + b"".join(map(write, node.children))


def mutated(data: bytes, others: tuple[bytes, ...], dice: Random) -> bytes:
    """The same CBOR with one to four changes of structure; raises ValueError when it is not CBOR."""
    tree = Node(ARRAY, children=[parse(data)])
    for _ in range(1 + (dice.random() < 0.3) + (dice.random() < 0.2) + (dice.random() < 0.1)):
        nodes = _flat(tree)
        node = nodes[dice.randrange(1, len(nodes))] if len(nodes) > 1 else tree
        _change(node, nodes, others, dice)
    return b"".join(map(write, tree.children))


def _parse(data: bytes, at: int, depth: int) -> tuple[Node, int]:
    if at >= len(data) or depth > _DEPTH_MAX:
        raise ValueError("no item here")
    start, major, low = at, data[at] >> 5, data[at] & 31
    at, argument, form = at + 1, low, None
    if low >= 24:
        if low not in _WIDTHS:
            raise ValueError("an indefinite or reserved length")
        width = 1 << (low - 24)
        argument, at = int.from_bytes(data[at : at + width], "big"), at + width
        form = low if _head(major, argument, None) != data[start:at] else None
    if at > len(data):
        raise ValueError("a head is cut off")
    if major in (BYTES, TEXT):
        if at + argument > len(data):
            raise ValueError("a string is cut off")
        return Node(major, data=data[at : at + argument], form=form), at + argument
    if major == SIMPLE:
        return Node(major, data=data[start:at]), at
    node = Node(major, argument, form=form)
    for _ in range({ARRAY: argument, MAP: 2 * argument, TAG: 1}.get(major, 0)):
        child, at = _parse(data, at, depth + 1)
        node.children.append(child)
    return node, at


def _head(major: int, argument: int, form: int | None) -> bytes:
    shortest = 23 if argument < 24 else 24 + (argument > 0xFF) + (argument > 0xFFFF) + (argument > 0xFFFFFFFF)
    low = max(shortest, form if form in _WIDTHS else 0)
    if low < 24:
        return bytes([major << 5 | argument])
    return bytes([major << 5 | low]) + argument.to_bytes(1 << (low - 24), "big")


def _flat(node: Node) -> list[Node]:
    nodes = [node]
    for child in node.children:
        nodes += _flat(child)
    return nodes


def _change(node: Node, nodes: list[Node], others: tuple[bytes, ...], dice: Random) -> None:
    chance = dice.random()
    if chance < 0.04:
        node.form = dice.choice((*_WIDTHS, INDEFINITE)) if node.major in (ARRAY, MAP) else dice.choice(_WIDTHS)
    elif chance < 0.07:
        _become(node, parse(dice.choice(_ATOMS)))
    elif chance < 0.09:
        _become(node, Node(TAG, dice.choice(_TAGS), children=[Node(**_fields(node))]))
    elif chance < 0.16:
        other = dice.choice(nodes)
        if node not in _flat(other):
            _become(node, _copy(other))
    elif chance < 0.24 and others:
        _become(node, _copy(dice.choice(_flat(parse(dice.choice(others))))))
    elif node.major in (UNSIGNED, NEGATIVE, TAG):
        node.argument = _number(node.argument, dice)
        if dice.random() < 0.05 and node.major != TAG:
            node.major ^= 1
    elif node.major in (BYTES, TEXT):
        node.data = _string(node, nodes, dice)
    elif node.major in (ARRAY, MAP):
        _rearrange(node, dice)
    else:
        _become(node, Node(UNSIGNED, dice.choice(_BORDERS)))


def _number(value: int, dice: Random) -> int:
    match dice.randrange(4):
        case 0:
            return dice.choice(_BORDERS)
        case 1:
            return min(value + 1, 2**64 - 1)
        case 2:
            return max(value - 1, 0)
        case _:
            return dice.randrange(2 ** dice.randrange(1, 65))


def _string(node: Node, nodes: list[Node], dice: Random) -> bytes:  # noqa: PLR0911 - one return a change
    data = node.data
    at = dice.randrange(len(data) + 1)
    match dice.randrange(7):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + dice.randbytes(dice.randrange(1, 5)) + data[at:]
        case 2:
            return data[:at] + data[at + 1 :]
        case 3 if node.major == TEXT:
            return dice.choice(_TEXTS)
        case 3:
            return dice.randbytes(dice.choice((0, 8, 31, 32, 33, 64)))
        case 4:
            return dice.choice([other.data for other in nodes if other.major == node.major])
        case 5 if node.major == TEXT:
            return data[:at] + b"%d" % dice.randrange(10) + data[at + 1 :]
        case _:
            return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :] if at < len(data) else data


def _rearrange(node: Node, dice: Random) -> None:
    step = 1 + (node.major == MAP)
    members = [node.children[at : at + step] for at in range(0, len(node.children), step)]
    if not members:
        members = [[Node(UNSIGNED, dice.choice(_BORDERS)) for _ in range(step)]]
    else:
        at, to = dice.randrange(len(members)), dice.randrange(len(members))
        match dice.randrange(5):
            case 0:
                del members[at]
            case 1:
                members.insert(to, [_copy(one) for one in members[at]])
            case 2:
                members[at], members[to] = members[to], members[at]
            case 3:
                members = members[: at + 1]
            case _:
                members[at][-1] = _copy(members[to][-1])
    node.children = [child for member in members for child in member]


def _become(node: Node, other: Node) -> None:
    for name, value in _fields(other).items():
        setattr(node, name, value)


def _copy(node: Node) -> Node:
    return Node(node.major, node.argument, node.data, [_copy(child) for child in node.children], node.form)


def _fields(node: Node) -> dict[str, Any]:
    return {name: getattr(node, name) for name in ("major", "argument", "data", "children", "form")}
