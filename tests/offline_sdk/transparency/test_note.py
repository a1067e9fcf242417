import base64
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_sdk.errors import CheckpointUntrusted, LogMalformed
from offline_sdk.transparency import Note, NoteSignature, SignatureType, VerifierKey, read_signature_lines
from offline_sdk.transparency.note import (
    COSIGNED_TIME_MAX,
    NAME_CHARS_MAX,
    NOTE_BYTES_MAX,
    SIGNATURES_MAX,
    decode_base64,
    decode_decimal,
)
from tests.offline_sdk.transparency.log_maker import LOG, NOW, WITNESSES

# The example and the key of C2SP signed-note.
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
# The keys and the note of the tests of golang.org/x/mod/sumdb/note.
PETER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
ENOCH_KEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
# The example of a text with an empty line, of C2SP signed-note, whose key is not published.
POEM = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore "
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
)


@pytest.mark.parametrize(
    ("note", "keys"), [(EXAMPLE, [EXAMPLE_KEY]), (GO_NOTE, [PETER_KEY, ENOCH_KEY])], ids=["C2SP", "Go"]
)
def test_published_notes_verify(note: str, keys: list[str]) -> None:
    known = [VerifierKey.read(key) for key in keys]
    assert list(map(str, known)) == keys
    read = Note.read(note.encode())
    assert bytes(read) == note.encode()
    assert read.verified(known) == dict.fromkeys(known)
    assert read.verified(known[:1]) == {known[0]: None}
    altered = Note.read(note.replace("T", "t", 1).replace("If", "if").encode())
    with pytest.raises(CheckpointUntrusted):
        altered.verified(known)


def test_the_text_ends_at_the_last_empty_line() -> None:
    note = Note.read(POEM.encode())
    assert note.text.count("\n") == 4
    assert [(one.name, one.key_id.hex()) for one in note.signatures] == [("quasimodo.example/salvatore", "367ba04b")]
    assert note.verified([LOG.key]) == {}


def test_keys_and_signatures_made_here_have_these_bytes() -> None:
    # Others keep these keys and notes: never change how they are written.
    assert str(LOG.key) == "log.example.cn/fanxing+e6d840bb+AV+A7STXGUmVn6iuua3Eo5Nr9OHv/T+8SKDCho86BSKt"
    assert str(WITNESSES[0].key) == "witness.example/w1+d7ec3267+BO2NXp96io5WwyFvQUEMfhRIAsqSo9DZ83HT1Nfgqy6k"
    text = "text\n"
    made = LOG.key.signature(LOG.sign(LOG.key.to_be_signed(text)))
    assert made.line.startswith("— log.example.cn/fanxing ")
    assert Note(text, (made,)).verified([LOG.key]) == {LOG.key: None}
    witness = WITNESSES[0]
    assert witness.key.to_be_signed(text, NOW) == b"cosignature/v1\ntime 1790000000\ntext\n"
    cosigned = witness.key.signature(witness.sign(witness.key.to_be_signed(text, NOW)), NOW)
    assert cosigned.content[:8] == NOW.to_bytes(8, "big")
    assert Note(text, (cosigned,)).verified([witness.key]) == {witness.key: NOW}


def test_a_witness_counts_by_its_newest_cosignature() -> None:
    key, text = WITNESSES[0].key, "text\n"
    made = [key.signature(WITNESSES[0].sign(key.to_be_signed(text, at)), at) for at in (NOW, NOW + 5, NOW + 2)]
    assert Note(text, tuple(made)).verified([key]) == {key: NOW + 5}


def test_a_time_belongs_to_a_cosignature_alone() -> None:
    for key, at in ((LOG.key, NOW), (WITNESSES[0].key, None), (WITNESSES[0].key, -1)):
        with pytest.raises(LogMalformed):
            key.to_be_signed("text\n", at)
        with pytest.raises(LogMalformed):
            key.signature(bytes(64), at)
    for length in (63, 65):
        with pytest.raises(LogMalformed):
            LOG.key.signature(bytes(length))


def test_a_cosignature_of_the_time_after_all_times_is_refused() -> None:
    key, text = WITNESSES[0].key, "text\n"
    for at, right in ((COSIGNED_TIME_MAX, True), (COSIGNED_TIME_MAX + 1, False), (2**64 - 1, False)):
        message = f"cosignature/v1\ntime {at}\n{text}".encode()
        note = Note(text, (NoteSignature(key.name, key.id, at.to_bytes(8, "big") + WITNESSES[0].sign(message)),))
        if right:
            assert note.verified([key]) == {key: at}
        else:
            with pytest.raises(CheckpointUntrusted):
                note.verified([key])


def test_a_signature_of_the_same_name_or_id_but_not_both_is_passed_over() -> None:
    text = "text\n"
    wrong = bytes(64)
    same_name = NoteSignature(LOG.key.name, b"none", wrong)
    same_id = NoteSignature("another", LOG.key.id, wrong)
    assert Note(text, (same_name, same_id)).verified([LOG.key]) == {}
    with pytest.raises(CheckpointUntrusted):
        Note(text, (NoteSignature(LOG.key.name, LOG.key.id, wrong),)).verified([LOG.key])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a+b",
        "example.com/foo+530d903a",
        EXAMPLE_KEY + "=",
        EXAMPLE_KEY[:-1],
        EXAMPLE_KEY.replace("530d903a", "530D903A"),
        EXAMPLE_KEY.replace("530d903a", "530d903b"),
        EXAMPLE_KEY.replace("example.com/foo", "example.com/bar"),
        EXAMPLE_KEY.replace("example.com/foo", "example.com/ foo"),
        EXAMPLE_KEY.replace("+Aek", "+Bek"),
        "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        " " + EXAMPLE_KEY,
        EXAMPLE_KEY + "\n",
        "x" * 600,
    ],
)
def test_a_key_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(LogMalformed):
        VerifierKey.read(text)


def test_a_key_of_small_order_is_refused() -> None:
    with pytest.raises(LogMalformed):
        VerifierKey("log", SignatureType.ED25519, bytes(32))


@pytest.mark.parametrize(
    ("length", "right"), [(0, False), (1, True), (NAME_CHARS_MAX, True), (NAME_CHARS_MAX + 1, False)]
)
def test_limits_of_a_name(length: int, right: bool) -> None:
    if right:
        assert VerifierKey("n" * length, LOG.type, LOG.key.public).name == "n" * length
    else:
        with pytest.raises(LogMalformed):
            VerifierKey("n" * length, LOG.type, LOG.key.public)


@pytest.mark.parametrize(
    "mark", [" ", "+", "\n", "\x00", "\x7f", "\x85", "\xa0", "\u2003", "\u3000", "\ud800"], ids=repr
)
def test_a_name_has_no_spaces_plus_signs_and_controls(mark: str) -> None:
    with pytest.raises(LogMalformed):
        NoteSignature(f"a{mark}b", bytes(4), b"x")


@pytest.mark.parametrize("count", [SIGNATURES_MAX, SIGNATURES_MAX + 1])
def test_limits_of_the_number_of_signatures(count: int) -> None:
    line = NoteSignature("x", bytes(4), b"x").line
    content = ("text\n\n" + line * count).encode()
    if count <= SIGNATURES_MAX:
        assert len(Note.read(content).signatures) == count
        assert len(read_signature_lines((line * count).encode())) == count
    else:
        with pytest.raises(LogMalformed):
            Note.read(content)
        with pytest.raises(LogMalformed):
            read_signature_lines((line * count).encode())


@pytest.mark.parametrize(("size", "right"), [(NOTE_BYTES_MAX, True), (NOTE_BYTES_MAX + 1, False)])
def test_limits_of_the_size_of_a_note(size: int, right: bool) -> None:
    line = NoteSignature("x", bytes(4), b"x").line
    content = f"{'t' * (size - 2 - len(line.encode()))}\n\n{line}".encode()
    assert len(content) == size
    if right:
        assert bytes(Note.read(content)) == content
    else:
        with pytest.raises(LogMalformed):
            Note.read(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\n\n",
        b"text\n\n",
        b"text\n\n\n",
        EXAMPLE[:-1].encode(),
        EXAMPLE.replace("— ", "- ").encode(),
        EXAMPLE.replace("— ", "—  ").encode(),
        EXAMPLE.replace("\n\n", "\n").encode(),
        EXAMPLE.replace("message", "mess\tage").encode(),
        EXAMPLE.replace("\n", "\r\n").encode(),
        EXAMPLE.replace("aQM=", "aQN=").encode(),
        EXAMPLE.replace("aQM=", "aQM").encode(),
        EXAMPLE.encode() + b"more",
        EXAMPLE.encode().replace(b"T", b"\xff"),
        "text\n\n— name AAAA\n".encode(),
        "text\n\n— name AAAAAA==\n".encode(),
    ],
)
def test_a_note_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(LogMalformed):
        Note.read(content)


PIECES = st.sampled_from(["text", "\n", "\n\n", "— ", "name", " ", "+", "AAAAAAA=", "AAAA", "\r", "\x00", "é", EXAMPLE])


@settings(max_examples=40)
@given(st.binary(max_size=200) | st.lists(PIECES, max_size=20).map(lambda parts: "".join(parts).encode()))
def test_any_bytes_are_one_note_in_its_one_form_or_refused(content: bytes) -> None:
    try:
        note = Note.read(content)
    except LogMalformed:
        return
    assert bytes(note) == content
    assert note.verified([LOG.key]) == {}


@settings(max_examples=40)
@given(st.binary(max_size=200) | st.lists(PIECES, max_size=20).map(lambda parts: "".join(parts).encode()))
def test_any_bytes_are_signature_lines_or_refused(content: bytes) -> None:
    try:
        lines = read_signature_lines(content)
    except LogMalformed:
        return
    assert "".join(one.line for one in lines).encode() == content


@settings(max_examples=40)
@given(st.text(max_size=80) | st.lists(st.sampled_from([*EXAMPLE_KEY.split("+"), "+", "=", "A"])).map("".join))
def test_any_text_is_one_key_in_its_one_form_or_refused(text: str) -> None:
    with suppress(LogMalformed):
        assert str(VerifierKey.read(text)) == text


@settings(max_examples=40)
@given(st.binary(max_size=70))
def test_base64_has_one_form(content: bytes) -> None:
    assert decode_base64(base64.b64encode(content).decode(), "it") == content


@settings(max_examples=40)
@given(st.text(alphabet="AB+/=z \n-", max_size=9))
def test_any_text_is_base64_in_its_one_form_or_refused(text: str) -> None:
    with suppress(LogMalformed):
        assert base64.b64encode(decode_base64(text, "it")).decode() == text


@pytest.mark.parametrize(
    ("text", "right"),
    [("0", True), ("1", True), ("999", True), ("1000", False), ("00", False), ("01", False), ("-1", False),
     ("+1", False), ("", False), (" 1", False), ("1_0", False), ("²", False), ("٣", False), ("9" * 5_000, False)],
)  # fmt: skip
def test_a_decimal_has_one_form(text: str, right: bool) -> None:
    if right:
        assert decode_decimal(text, "it", 999) == int(text)
    else:
        with pytest.raises(LogMalformed):
            decode_decimal(text, "it", 999)
