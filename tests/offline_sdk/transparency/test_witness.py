from contextlib import suppress
from http import HTTPStatus
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_sdk.errors import LogMalformed
from offline_sdk.transparency import AddCheckpoint, Head, Policy, SignedCheckpoint, Witness, read_signature_lines, tree
from offline_sdk.transparency.note import COSIGNED_TIME_MAX
from offline_sdk.transparency.witness import ANSWER_SIZE
from tests.offline_sdk.transparency.log_maker import LOG, NOW, WITNESSES, Log, Signer

# The example of C2SP tlog-witness, add-checkpoint; its keys are not published.
EXAMPLE = """\
old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
""".encode()  # noqa: E501
# The example of its answer: three cosignatures of two witnesses.
EXAMPLE_ANSWER = """\
— witness.example/w1 CMp+6LWBU0anHGH5aNDTJkH/gj79sG+T6+iP2ThYN5krrDJbR1HDnucjL39QsZTSvVjyQLrdk3DXDqI5G2HgLatVs0pWh6Up69HVOw==
— witness.example/w1 I7rEps0pvK2UqkS2gSpVUDhrhVtQV9lgF6pRrWAvjJHjyWpW7VcE3SiOlVlbQNt64vWhO+DlkL0+UfzuOBMh9ChdMkP1vi/lCAsmlw==
— witness.example/w2 AWui8Sk55XjYLOijihBjhqEH6nS1ndDymE0a+6idX7pLcnoB+dhnz0854aLZgrrKbYKA7nC3HNJhm/kWl7oJlqU3rXXvpysAdyP3wQ==
""".encode()  # noqa: E501

TREE = Log.of(600)
FORK = Log()
FORK.append([*TREE.records[:10], b"rewritten", *TREE.records[11:]])
ONE = WITNESSES[0]


def witness(heads: dict[str, Head] | None = None) -> Witness:
    return Witness(ONE.key, ONE.sign, (LOG.key,), heads or {})


def request(log: Log, old: int, new: int, **changes: Any) -> AddCheckpoint:
    fields = {"old_size": old, "proof": log.consistency(old, new), "signed": log.signed(new)} | changes
    return AddCheckpoint(**fields)


def at(size: int, log: Log = TREE) -> dict[str, Head]:
    return {LOG.name: Head(size, log.checkpoint(size).root)}


def test_the_examples_of_the_specification_are_read_and_written() -> None:
    read = AddCheckpoint.read(EXAMPLE)
    assert (read.old_size, len(read.proof), read.signed.checkpoint.size) == (20_852_014, 4, 20_852_163)
    assert bytes(read) == EXAMPLE
    lines = read_signature_lines(EXAMPLE_ANSWER)
    assert [one.name for one in lines] == ["witness.example/w1"] * 2 + ["witness.example/w2"]
    assert "".join(one.line for one in lines).encode() == EXAMPLE_ANSWER


def test_a_log_that_grows_is_cosigned_each_time() -> None:
    mine = witness()
    size, sizes = 0, [1, 2, 255, 256, 257, 600]
    for number, new in enumerate(sizes):
        answer = mine.add_checkpoint(bytes(request(TREE, size, new)), NOW + number)
        assert answer.status == HTTPStatus.OK, answer.body
        mine = mine.following(answer.heads)
        cosigned = TREE.signed(new).cosigned(read_signature_lines(answer.body), [ONE.key])
        assert Policy(LOG.key, (ONE.key,), 1).check(cosigned).witnesses == ((ONE.key, NOW + number),)
        size = new
    assert mine.heads == at(600)


def test_the_first_checkpoint_may_be_of_no_leaves() -> None:
    answer = witness().add_checkpoint(bytes(request(TREE, 0, 0)), NOW)
    assert answer.status == HTTPStatus.OK


def test_the_same_checkpoint_is_cosigned_again_and_nothing_changes() -> None:
    mine = witness(at(300))
    answer = mine.add_checkpoint(bytes(request(TREE, 300, 300)), NOW)
    assert (answer.status, answer.heads is mine.heads) == (HTTPStatus.OK, True)


REFUSED: dict[str, tuple[bytes, HTTPStatus, bytes | None]] = {
    "no request": (b"hello", HTTPStatus.BAD_REQUEST, None),
    "old above new": (bytes(request(TREE, 300, 300, old_size=301)), HTTPStatus.BAD_REQUEST, None),
    "unknown log": (EXAMPLE, HTTPStatus.NOT_FOUND, None),
    "not signed by the log": (
        bytes(request(TREE, 300, 400, signed=Signer("stranger", LOG.type).signed(TREE.checkpoint(400)))),
        HTTPStatus.FORBIDDEN,
        None,
    ),
    "wrong signature": (
        bytes(request(TREE, 300, 400, signed=SignedCheckpoint(TREE.checkpoint(400), TREE.signed(401).signatures))),
        HTTPStatus.FORBIDDEN,
        None,
    ),
    "behind": (bytes(request(TREE, 200, 400)), HTTPStatus.CONFLICT, b"300\n"),
    "ahead": (bytes(request(TREE, 301, 400)), HTTPStatus.CONFLICT, b"300\n"),
    "from nothing": (bytes(request(TREE, 0, 400)), HTTPStatus.CONFLICT, b"300\n"),
    "rolled back": (bytes(request(TREE, 200, 200)), HTTPStatus.CONFLICT, b"300\n"),
    "fork of the same size": (bytes(request(FORK, 300, 300)), HTTPStatus.CONFLICT, b"300\n"),
    "fork that grew": (bytes(request(FORK, 300, 400)), HTTPStatus.UNPROCESSABLE_ENTITY, None),
    "no proof": (bytes(request(TREE, 300, 400, proof=())), HTTPStatus.UNPROCESSABLE_ENTITY, None),
    "a proof of nothing": (
        bytes(request(TREE, 300, 300, proof=(bytes(32),))),
        HTTPStatus.UNPROCESSABLE_ENTITY,
        None,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_and_how(case: str) -> None:
    body, status, told = REFUSED[case]
    mine = witness(at(300))
    answer = mine.add_checkpoint(body, NOW)
    assert (answer.status, answer.heads is mine.heads) == (status, True)
    assert b"\xe2\x80\x94" not in answer.body
    if told is not None:
        assert (answer.body, answer.content_type) == (told, ANSWER_SIZE)


def test_a_proof_from_nothing_is_empty() -> None:
    answer = witness().add_checkpoint(bytes(request(TREE, 0, 9, proof=(bytes(32),))), NOW)
    assert answer.status == HTTPStatus.UNPROCESSABLE_ENTITY


def test_a_log_may_have_two_keys() -> None:
    new = Signer(LOG.name, LOG.type)
    other = Witness(ONE.key, ONE.sign, (Signer(f"{LOG.name}/x", LOG.type).key, new.key), {})
    assert other.add_checkpoint(bytes(request(TREE, 0, 9)), NOW).status == HTTPStatus.OK


def test_keys_of_the_wrong_type_are_refused() -> None:
    with pytest.raises(LogMalformed):
        Witness(LOG.key, LOG.sign, (LOG.key,))
    with pytest.raises(LogMalformed):
        Witness(ONE.key, ONE.sign, (ONE.key,))
    with pytest.raises(LogMalformed):
        witness().add_checkpoint(b"", COSIGNED_TIME_MAX + 1)


@pytest.mark.parametrize("seed", range(4))
def test_no_sequence_of_requests_makes_it_cosign_two_histories(seed: int) -> None:
    random = Random(seed)
    mine, size = witness(), 0
    cosigned: dict[int, bytes] = {}
    for _ in range(60):
        # Up to leaf 10 both are one history.
        log = random.choice([TREE, FORK])
        old = random.choice([0, 10, size, size, size])
        new = max(old, min(600, size + random.choice([-1, 0, 1, 3, 5, 40])))
        answer = mine.add_checkpoint(bytes(request(log, old, new)), NOW)
        if answer.status == HTTPStatus.OK:
            root = log.checkpoint(new).root
            assert cosigned.setdefault(new, root) == root
            mine, size = mine.following(answer.heads), new
    sizes = sorted(cosigned)
    assert len(sizes) > 3
    logs = [log for log in (TREE, FORK) if all(tree.root(size, log.reader) == cosigned[size] for size in sizes)]
    assert len(logs) == 1


@settings(max_examples=40)
@given(st.data())
def test_any_body_has_an_answer_and_only_the_right_one_is_cosigned(data: st.DataObject) -> None:
    right = bytes(request(TREE, 300, 400))
    begin = data.draw(st.integers(0, len(right) - 1))
    end = begin + data.draw(st.integers(0, 3))
    changed = right[:begin] + data.draw(st.binary(max_size=3)) + right[end:]
    mine = witness(at(300))
    answer = mine.add_checkpoint(changed, NOW)
    if answer.status == HTTPStatus.OK:
        assert answer.heads == at(400)
    else:
        assert answer.heads is mine.heads


@settings(max_examples=40)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_in_its_one_form_or_refused(body: bytes) -> None:
    with suppress(LogMalformed):
        assert bytes(AddCheckpoint.read(body)) == body
