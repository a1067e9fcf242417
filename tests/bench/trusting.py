"""What a bundle of a thousand keys and a million revoked items weighs, how fast it loads, and how fast it answers."""

import json
import math
import random
import statistics
import subprocess
import sys
import time
from bisect import bisect_left
from pathlib import Path

from nacl.signing import SigningKey

from offline_sdk import (
    Algorithm,
    Bundle,
    BundleKey,
    DocumentType,
    ItemSet,
    Revocations,
    RevokedItems,
    Signer,
    seal,
    to_be_signed,
)
from offline_sdk.code_text import ITEM_MAX
from tests.bench.figures import Figure, figure, in_turns, rate_of

GTIN = "06901234567892"
KEYS = 1_000
ITEMS = 1_000_000
SHAPES = (1, 10)
"""Over how many orders the items are spread."""
LOADS = 7
PROBES = 20_000
ROUNDS = 5
MEGA = 1e6

# In a process of its own, so that time and memory are those of a scanner that starts: reads a document and says how
# long the load took, the bare verification of its signature, and the greatest memory before and after.
_LOAD = """
import json, sys, time
from offline_sdk import Algorithm, Bundle, Signer
from offline_sdk import cose
def peak():  # of this process alone: what getrusage tells began in the process that started this one
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
document, publisher = open(sys.argv[1], "rb").read(), Signer(Algorithm.ED25519, bytes.fromhex(sys.argv[2]))
before, started = peak(), time.perf_counter()
bundle = Bundle.load(document, [publisher])
took, after = time.perf_counter() - started, peak()
started = time.perf_counter()
assert cose.right_signers(cose.read(document)[0], [publisher])
print(json.dumps([took, time.perf_counter() - started, before, after]))
"""
_FIRST_CHECK = """
import sys
from datetime import datetime, timezone
from offline_sdk import Algorithm, Bundle, Signer, Verifier
publisher = Signer(Algorithm.ED25519, bytes.fromhex(sys.argv[2]))
bundle = Bundle.load(open(sys.argv[1], "rb").read(), [publisher])
verifier = Verifier(bundle, now=datetime.fromtimestamp(1, timezone.utc))
assert verifier.check("https://id.example.cn/").error == "Malformed"
code = "https://id.example.cn/100001" + "1" * 155 + "/01/06901234567892/21/00001000000001"
assert verifier.check(code).error == "BadSignature"
"""
_BARE_PROCESS = "import nacl.bindings, cbor2"


def trust(folder: Path) -> list[Figure]:
    """Size, load, memory and membership of large bundles; the first check of a new process."""
    publisher = SigningKey(bytes(range(32)))
    signer = Signer(Algorithm.ED25519, bytes(publisher.verify_key))
    figures = []
    for orders in SHAPES:
        groups = _groups(orders)
        path = folder / f"{orders}.cbor"
        path.write_bytes(_document(publisher, signer, groups))
        figures += [_size(path, orders), *_loads(path, signer, orders), _membership(groups, orders)]
    small = folder / "small.cbor"
    small.write_bytes(_document(publisher, signer, []))
    return [*figures, _first_check(small, signer)]


def _groups(orders: int) -> list[list[int]]:
    chance = random.Random(orders)
    return [sorted(chance.sample(range(ITEM_MAX + 1), ITEMS // orders)) for _ in range(orders)]


def _document(publisher: SigningKey, signer: Signer, groups: list[list[int]]) -> bytes:
    chance = random.Random(0)
    keys = tuple(
        BundleKey(kid, bytes(SigningKey(chance.randbytes(32)).verify_key), "Fanxing Bench Dairy", ("690123456",))
        for kid in range(1, KEYS + 1)
    )
    items = tuple(RevokedItems(GTIN, order, ItemSet.of(numbers)) for order, numbers in enumerate(groups, 1))
    payload = Bundle("bench.example", 1, 0, 2, keys, Revocations(items=items)).payload()
    signature = publisher.sign(to_be_signed(DocumentType.BUNDLE, payload, signer)).signature
    return seal(DocumentType.BUNDLE, payload, {signer: signature})


def _size(path: Path, orders: int) -> Figure:
    """Beside what any exact encoding must take: the information in which items they are."""
    each = ITEMS // orders
    least = orders * (math.lgamma(ITEM_MAX + 2) - math.lgamma(each + 1) - math.lgamma(ITEM_MAX + 2 - each))
    size, least_bytes = path.stat().st_size / MEGA, least / math.log(2) / 8 / MEGA
    name = f"trust, document, {ITEMS:,} items in {orders} orders"
    return Figure(name, size, "MB", "information in the items alone", least_bytes, size / least_bytes)


def _loads(path: Path, signer: Signer, orders: int) -> list[Figure]:
    told = [_python(_LOAD, path, signer) for _ in range(LOADS)]
    loads, bare, before, after = (statistics.median(column) for column in zip(*map(json.loads, told), strict=True))
    name = f"trust, load, {orders} orders"
    return [
        Figure(name, loads * 1e3, "ms", "verifying its signature alone, ms", bare * 1e3, loads / bare),
        Figure(f"{name}, peak of the process", after / MEGA, "MB", "before it, MB", before / MEGA, after / before),
    ]


def _membership(groups: list[list[int]], orders: int) -> Figure:
    """Beside bisection of the same numbers in a list, which takes 8 bytes a pointer and 32 a number."""
    chance = random.Random(1)
    sets = [ItemSet.of(numbers) for numbers in groups]
    probes = [(chance.randrange(orders), chance.randrange(ITEM_MAX + 1)) for _ in range(PROBES // 2)]
    probes += [(at, chance.choice(groups[at])) for at in (chance.randrange(orders) for _ in range(PROBES // 2))]

    def ours() -> None:
        assert sum(item in sets[at] for at, item in probes) >= PROBES // 2

    def bisection() -> None:
        found = 0
        for at, item in probes:
            place = bisect_left(groups[at], item)
            found += place < len(groups[at]) and groups[at][place] == item
        assert found >= PROBES // 2

    rates, beside = in_turns(ROUNDS, lambda: rate_of(PROBES, ours), lambda: rate_of(PROBES, bisection))
    return figure(f"trust, membership, {orders} orders", rates, "answers/s", "bisecting a list of them", beside)


def _first_check(path: Path, signer: Signer) -> Figure:
    def seconds(program: str) -> float:
        started = time.perf_counter()
        _python(program, path, signer)
        return time.perf_counter() - started

    ours, bare = in_turns(LOADS, lambda: seconds(_FIRST_CHECK), lambda: seconds(_BARE_PROCESS))
    took, beside = statistics.median(ours) * 1e3, statistics.median(bare) * 1e3
    name = "trust, first check of a new process"
    return Figure(name, took, "ms", "a process that imports nacl and cbor2, ms", beside, took / beside)


def _python(program: str, path: Path, signer: Signer) -> str:
    command = [sys.executable, "-c", program, str(path), signer.public.hex()]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
