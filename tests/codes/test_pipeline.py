"""The pipeline: the same order gives the same codes, each signed, each once."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from codes.pipeline import CHUNK_ITEMS, Section, make, sections
from codes.serials import SerialScheme
from codes.signing import SignMany, order_signer
from offline_sdk import Profile, Verifier, parse
from tests.codes.conftest import GTIN, Chunks, MakeRecipe, vector_id, vectors

BOTH = (Profile.OUTER, Profile.INNER)


def recipe_of(vector: dict[str, Any], make_recipe: MakeRecipe, quantity: int) -> Any:
    return make_recipe(
        quantity,
        (Profile(vector["profile"]),),
        gtin=vector["gtin"],
        order_number=int(vector["order"]),
        kid=vector["kid"],
        base_url=vector["base"],
    )


@pytest.mark.parametrize("vector", vectors()["valid"], ids=vector_id)
def test_published_texts_are_made_again_from_the_two_keys(
    vector: dict[str, Any], make_recipe: MakeRecipe, sign: SignMany, scheme: SerialScheme
) -> None:
    recipe = recipe_of(vector, make_recipe, vector["index"] + 1)
    section = Section(Profile(vector["profile"]), 0, ((vector["index"], vector["index"]),))
    chunk = make(recipe, order_signer(recipe, scheme, sign), section)
    assert (chunk.section, chunk.serials, chunk.texts) == (section, [vector["serial"]], [vector["text"]])
    assert parse(chunk.texts[0]).signature.hex() == vector["signature_hex"]


@pytest.mark.parametrize("vector", [vector for vector in vectors()["valid"] if vector["index"] < 10_000], ids=vector_id)
def test_published_texts_stand_at_their_issue_index(
    vector: dict[str, Any], make_recipe: MakeRecipe, chunks: Chunks
) -> None:
    (chunk,) = chunks(recipe_of(vector, make_recipe, vector["index"] + 1))
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
def test_sections_break_where_they_should(quantity: int, sizes: list[int]) -> None:
    cut = list(sections(BOTH, [(0, quantity - 1)]))
    assert [section.face for section in cut] == [Profile.OUTER] * len(sizes) + [Profile.INNER] * len(sizes)
    for face in BOTH:
        of_face = [section for section in cut if section.face == face]
        assert [section.count for section in of_face] == sizes
        assert [section.number for section in of_face] == list(range(len(sizes)))
        assert [section.ranges[0][0] for section in of_face] == [at * CHUNK_ITEMS for at in range(len(sizes))]


def test_sections_cover_the_ranges_and_nothing_else() -> None:
    cut = list(sections((Profile.OUTER,), [(5, 5), (10, 16), (20, 25)], items_max=3))
    assert [(section.number, section.ranges, section.count) for section in cut] == [
        (0, ((5, 5), (10, 11)), 3),
        (1, ((12, 14),), 3),
        (2, ((15, 16), (20, 20)), 3),
        (3, ((21, 23),), 3),
        (4, ((24, 25),), 2),
    ]


def test_a_thousand_million_items_are_cut_without_being_held() -> None:
    assert next(iter(sections(BOTH, [(0, 999_999_999)]))).count == CHUNK_ITEMS


def test_the_size_of_chunks_does_not_change_the_codes(make_recipe: MakeRecipe, chunks: Chunks) -> None:
    recipe = make_recipe(10, BOTH)
    whole = [(chunk.section.face, text) for chunk in chunks(recipe) for text in chunk.texts]
    made = list(chunks(recipe, 3))
    assert [len(chunk.texts) for chunk in made] == [3, 3, 3, 1] * 2
    assert [(chunk.section.face, text) for chunk in made for text in chunk.texts] == whole


def test_the_same_order_gives_the_same_codes_on_every_run(make_recipe: MakeRecipe, chunks: Chunks) -> None:
    assert list(chunks(make_recipe(500, BOTH))) == list(chunks(make_recipe(500, BOTH)))


def test_a_larger_order_begins_like_a_smaller_one(make_recipe: MakeRecipe, chunks: Chunks) -> None:
    (small,), (large,) = chunks(make_recipe(100)), chunks(make_recipe(300))
    assert large.texts[:100] == small.texts


@pytest.mark.parametrize("faces", [(Profile.OUTER,), (Profile.INNER,), BOTH])
def test_every_code_is_genuine_and_says_what_was_ordered(
    faces: tuple[Profile, ...], make_recipe: MakeRecipe, chunks: Chunks, verifier: Verifier
) -> None:
    made = list(chunks(make_recipe(200, faces)))
    assert tuple(chunk.section.face for chunk in made) == faces
    for chunk in made:
        for serial, text in zip(chunk.serials, chunk.texts, strict=True):
            code = verifier.verify(text).code_text
            assert (code.profile, code.kid, code.gtin, code.serial) == (chunk.section.face, 1, GTIN, serial)
            assert code.order == 1


def test_both_faces_of_an_item_share_its_serial_and_no_signature(make_recipe: MakeRecipe, chunks: Chunks) -> None:
    outer, inner = chunks(make_recipe(500, BOTH))
    assert outer.serials == inner.serials
    signatures = {parse(text).signature for text in outer.texts + inner.texts}
    assert len(signatures) == 1_000


def test_no_serial_comes_twice(make_recipe: MakeRecipe, scheme: SerialScheme) -> None:
    recipe = make_recipe(200_000)
    signer = order_signer(recipe, scheme, lambda messages: [bytes(64)] * len(messages))
    cut = sections(recipe.faces, [(0, 199_999)])
    assert len(set(itertools.chain.from_iterable(make(recipe, signer, section).serials for section in cut))) == 200_000


@pytest.mark.parametrize(
    ("face", "start", "count"),
    [
        (Profile.OUTER, 0, 11),
        (Profile.OUTER, 10, 1),
        (Profile.OUTER, -1, 1),
        (Profile.OUTER, 5, 0),
        (Profile.INNER, 0, 1),
    ],
)
def test_items_that_the_order_does_not_have_are_not_signed(
    face: Profile, start: int, count: int, make_recipe: MakeRecipe, scheme: SerialScheme
) -> None:
    def never(messages: Sequence[bytes]) -> list[bytes]:
        pytest.fail("signed")

    with pytest.raises(ValueError, match="no such items"):
        order_signer(make_recipe(10), scheme, never)(face, start, count)


def test_the_last_items_of_an_order_are_signed(make_recipe: MakeRecipe, scheme: SerialScheme, sign: SignMany) -> None:
    assert len(order_signer(make_recipe(10), scheme, sign)(Profile.OUTER, 0, 10).signatures) == 10
    assert len(order_signer(make_recipe(10), scheme, sign)(Profile.OUTER, 9, 1).signatures) == 1


def test_a_signer_that_leaves_one_out_is_noticed(make_recipe: MakeRecipe, scheme: SerialScheme, sign: SignMany) -> None:
    recipe = make_recipe(10)
    signer = order_signer(recipe, scheme, lambda messages: sign(messages)[:-1])
    with pytest.raises(ValueError, match="shorter"):
        make(recipe, signer, Section(Profile.OUTER, 0, ((0, 9),)))


@pytest.mark.slow
def test_two_hundred_thousand_signed_codes_of_both_faces_are_all_different(
    make_recipe: MakeRecipe, chunks: Chunks, verifier: Verifier
) -> None:
    texts: set[str] = set()
    for chunk in chunks(make_recipe(100_000, BOTH)):
        texts.update(chunk.texts)
        assert verifier.check(chunk.texts[-1]).is_genuine
    assert len(texts) == 200_000
