"""The pipeline: the same order gives the same codes, each signed, each once."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from codes import pipeline
from codes.pipeline import CHUNK_ITEMS, generate
from codes.serials import ItemNumbers, SerialScheme
from offline_sdk import Profile, Verifier, parse
from tests.codes.conftest import GTIN, Chunks, MakeOrder, vector_id, vectors

Sign = Callable[[Sequence[bytes]], list[bytes]]
BOTH = (Profile.OUTER, Profile.INNER)


class From(SerialScheme):
    """The permutation seen from an index on, so that a test need not make a thousand million codes before it."""

    def __init__(self, key: bytes, first: int) -> None:
        super().__init__(key)
        self._first = first

    def item_numbers(self, gtin: str, order_number: int, start: int, count: int) -> ItemNumbers:
        return super().item_numbers(gtin, order_number, self._first + start, count)


def order_of(vector: dict[str, Any], make_order: MakeOrder, quantity: int) -> Any:
    return make_order(
        quantity,
        (Profile(vector["profile"]),),
        gtin=vector["gtin"],
        order_number=int(vector["order"]),
        kid=vector["kid"],
        base_url=vector["base"],
    )


@pytest.mark.parametrize("vector", vectors()["valid"], ids=vector_id)
def test_published_texts_are_made_again_from_the_two_keys(
    vector: dict[str, Any], make_order: MakeOrder, sign: Sign
) -> None:
    scheme = From(bytes.fromhex(vectors()["serial_key_hex"]), vector["index"])
    (chunk,) = generate(order_of(vector, make_order, 1), scheme, sign)
    assert (chunk.face, chunk.serials, chunk.texts) == (vector["profile"], [vector["serial"]], [vector["text"]])
    assert parse(chunk.texts[0]).signature.hex() == vector["signature_hex"]


@pytest.mark.parametrize("vector", [vector for vector in vectors()["valid"] if vector["index"] < 10_000], ids=vector_id)
def test_published_texts_stand_at_their_issue_index(
    vector: dict[str, Any], make_order: MakeOrder, chunks: Chunks
) -> None:
    (chunk,) = chunks(order_of(vector, make_order, vector["index"] + 1))
    assert (chunk.serials[vector["index"]], chunk.texts[vector["index"]]) == (vector["serial"], vector["text"])


@pytest.mark.parametrize(
    ("quantity", "sizes"),
    [
        (1, [1]),
        (CHUNK_ITEMS - 1, [CHUNK_ITEMS - 1]),
        (CHUNK_ITEMS, [CHUNK_ITEMS]),
        (CHUNK_ITEMS + 1, [CHUNK_ITEMS, 1]),
        (2 * CHUNK_ITEMS, [CHUNK_ITEMS, CHUNK_ITEMS]),
    ],
)
def test_chunks_break_where_they_should(
    quantity: int, sizes: list[int], make_order: MakeOrder, scheme: SerialScheme
) -> None:
    made = list(generate(make_order(quantity, BOTH), scheme, unsigned))
    assert [chunk.face for chunk in made] == [Profile.OUTER] * len(sizes) + [Profile.INNER] * len(sizes)
    for face in BOTH:
        of_face = [chunk for chunk in made if chunk.face == face]
        assert [len(chunk.serials) for chunk in of_face] == [len(chunk.texts) for chunk in of_face] == sizes
        assert [chunk.start for chunk in of_face] == [number * CHUNK_ITEMS for number in range(len(sizes))]


def unsigned(messages: Sequence[bytes]) -> list[bytes]:
    return [bytes(64)] * len(messages)


def test_the_size_of_chunks_does_not_change_the_codes(
    make_order: MakeOrder, chunks: Chunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = make_order(10, BOTH)
    whole = [(chunk.face, text) for chunk in chunks(order) for text in chunk.texts]
    monkeypatch.setattr(pipeline, "CHUNK_ITEMS", 3)
    made = list(chunks(order))
    assert [len(chunk.texts) for chunk in made] == [3, 3, 3, 1] * 2
    assert [(chunk.face, text) for chunk in made for text in chunk.texts] == whole


def test_the_same_order_gives_the_same_codes_on_every_run(make_order: MakeOrder, chunks: Chunks) -> None:
    assert list(chunks(make_order(500, BOTH))) == list(chunks(make_order(500, BOTH)))


def test_a_larger_order_begins_like_a_smaller_one(make_order: MakeOrder, chunks: Chunks) -> None:
    (small,), (large,) = chunks(make_order(100)), chunks(make_order(300))
    assert large.texts[:100] == small.texts


@pytest.mark.parametrize("faces", [(Profile.OUTER,), (Profile.INNER,), BOTH])
def test_every_code_is_genuine_and_says_what_was_ordered(
    faces: tuple[Profile, ...], make_order: MakeOrder, chunks: Chunks, verifier: Verifier
) -> None:
    made = list(chunks(make_order(200, faces)))
    assert tuple(chunk.face for chunk in made) == faces
    for chunk in made:
        for serial, text in zip(chunk.serials, chunk.texts, strict=True):
            code = verifier.verify(text).code_text
            assert (code.profile, code.kid, code.gtin, code.serial) == (chunk.face, 1, GTIN, serial)
            assert code.order == 1


def test_both_faces_of_an_item_share_its_serial_and_no_signature(make_order: MakeOrder, chunks: Chunks) -> None:
    outer, inner = chunks(make_order(500, BOTH))
    assert outer.serials == inner.serials
    signatures = {parse(text).signature for text in outer.texts + inner.texts}
    assert len(signatures) == 1_000


def test_no_serial_and_no_text_comes_twice(make_order: MakeOrder, scheme: SerialScheme) -> None:
    serials: set[str] = set()
    for chunk in generate(make_order(200_000), scheme, unsigned):
        serials.update(chunk.serials)
    assert len(serials) == 200_000


def test_nothing_is_signed_before_it_is_asked_for(make_order: MakeOrder, scheme: SerialScheme, sign: Sign) -> None:
    signed: list[int] = []

    def counting(messages: Sequence[bytes]) -> list[bytes]:
        signed.append(len(messages))
        return sign(messages)

    making = generate(make_order(1_000_000_000), scheme, counting)
    assert signed == []
    next(making)
    assert signed == [CHUNK_ITEMS]


def test_a_signer_that_leaves_one_out_is_noticed(make_order: MakeOrder, scheme: SerialScheme, sign: Sign) -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(generate(make_order(10), scheme, lambda messages: sign(messages)[:-1]))


@pytest.mark.slow
def test_two_hundred_thousand_signed_codes_of_both_faces_are_all_different(
    make_order: MakeOrder, chunks: Chunks, verifier: Verifier
) -> None:
    texts: set[str] = set()
    for chunk in chunks(make_order(100_000, BOTH)):
        texts.update(chunk.texts)
        assert verifier.check(chunk.texts[-1]).is_genuine
    assert len(texts) == 200_000
