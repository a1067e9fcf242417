import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from offline_sdk import Bundle, Root, Signer, cli, format_pin, program
from tests.offline_sdk.trust_domain import root, root_document

ROOT_FOLDER = Path(__file__).parents[2]
KEYS = [
    "text", "verdict", "error", "gtin", "serial", "profile", "kid", "issuer", "bundle_seq", "bundle_state",
    "clock_suspect",
]  # fmt: skip

Run = Callable[..., subprocess.CompletedProcess[bytes]]


def trust_file(bundle: Bundle, publisher: Signer, publish: Callable[[bytes], bytes], **fields: Any) -> bytes:
    """A root and a bundle that is fresh by the system's clock unless the fields say otherwise."""
    now = int(datetime.now(UTC).timestamp())
    settled = {"seq": 42, "issued": now - 60, "expires": now + 86_400, "prev": bytes(32)} | fields
    return root_document(root_of(publisher)) + publish(dataclasses.replace(bundle, **settled).payload())


def root_of(publisher: Signer) -> Root:
    return dataclasses.replace(root(), publishers=(publisher,), issued=0, expires=4_000_000_000)


@pytest.fixture
def folder(tmp_path: Path, bundle: Bundle, publisher: Signer, publish: Callable[[bytes], bytes]) -> Path:
    """A folder with a pin and a trust file."""
    (tmp_path / "trust.cbor").write_bytes(trust_file(bundle, publisher, publish))
    (tmp_path / "root.txt").write_bytes(format_pin(root_of(publisher).fingerprint))
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    """Run the real program in a process of its own."""

    def start(
        *arguments: str | bytes, stdin: bytes = b"", trust: str = "trust.cbor", root: str = "root.txt"
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "offline_sdk", "--trust", trust, "--root", root, *arguments],
            input=stdin,
            capture_output=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT_FOLDER)},
            timeout=60,
            check=False,
        )

    return start


@pytest.fixture
def genuine(vectors: dict[str, Any]) -> str:
    text: str = vectors["valid"][0]["text"]
    return text


@pytest.fixture
def forged(vectors: dict[str, Any]) -> str:
    text: str = vectors["invalid"][0]["text"]
    return text


def rows(outcome: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def test_genuine_text_exits_0_and_says_what_that_does_not_prove(run: Run, genuine: str) -> None:
    outcome = run(genuine)
    assert outcome.returncode == 0
    lines = outcome.stdout.decode().splitlines()
    assert lines[0].startswith("GENUINE, GTIN 06901234567892 serial 00001975404383 (outer code), issuer Fanxing Demo")
    assert outcome.stdout.decode().count("never copying") == 1
    assert outcome.stderr == b""


def test_refused_text_exits_1_and_is_not_printed(run: Run, genuine: str, forged: str) -> None:
    outcome = run(genuine, forged, "x")
    assert outcome.returncode == 1
    lines = outcome.stdout.decode().splitlines()
    assert [line.split(",")[0] for line in lines[:3]] == ["GENUINE", "REFUSED BadSignature", "REFUSED Malformed"]
    assert forged[28:60] not in outcome.stdout.decode()


def test_json_has_exactly_these_keys(run: Run, genuine: str) -> None:
    outcome = run("--json", genuine, "x")
    assert outcome.returncode == 1
    first, second = rows(outcome)
    # Never change a key or its meaning: other programs read these lines.
    assert list(first) == list(second) == KEYS
    assert first == {
        "text": genuine, "verdict": "genuine", "error": None, "gtin": "06901234567892", "serial": "00001975404383",
        "profile": 1, "kid": 1, "issuer": "Fanxing Demo Dairy", "bundle_seq": 42, "bundle_state": "fresh",
        "clock_suspect": False,
    }  # fmt: skip
    assert (second["text"], second["verdict"], second["error"], second["kid"]) == ("x", "refused", "Malformed", None)


def test_texts_are_read_from_stdin_one_a_line(run: Run, genuine: str, forged: str) -> None:
    stdin = f"{genuine}\n{genuine}\r\n{forged}\n\n {genuine}\n{genuine}\r\r\n{genuine}".encode()
    outcome = run("--json", stdin=stdin)
    errors = [row["error"] for row in rows(outcome)]
    assert errors == [None, None, "BadSignature", "Malformed", "Malformed", "Malformed", None]
    assert outcome.returncode == 1


def test_lone_cr_at_the_end_of_input_belongs_to_the_text(run: Run, genuine: str) -> None:
    assert run(stdin=genuine.encode() + b"\r").returncode == 1


def test_all_genuine_or_no_lines_exit_0(run: Run, genuine: str) -> None:
    assert run(stdin=f"{genuine}\n".encode()).returncode == 0
    outcome = run("--json")
    assert (outcome.returncode, outcome.stdout) == (0, b"")


def test_undecodable_bytes_are_malformed_and_the_next_line_is_judged(run: Run, genuine: str) -> None:
    outcome = run("--json", stdin=b"\xff\xfe\x80\n" + genuine.encode() + b"\n\xed\xa0\x80\x00\n")
    assert [row["error"] for row in rows(outcome)] == ["Malformed", None, "Malformed"]
    assert [row["text"] for row in rows(outcome)] == ["\\xff\\xfe\\x80", genuine, "\\xed\\xa0\\x80\x00"]
    assert b"Traceback" not in outcome.stderr


def test_undecodable_argument_is_malformed(run: Run) -> None:
    outcome = run("--json", b"\xff")
    assert (outcome.returncode, rows(outcome)[0]["error"], rows(outcome)[0]["text"]) == (1, "Malformed", "\\xff")


def test_endless_line_is_malformed_and_the_next_line_is_judged(run: Run, genuine: str) -> None:
    outcome = run("--json", stdin=b"9" * 20_000_000 + b"\n" + genuine.encode())
    endless, after = rows(outcome)
    assert (endless["error"], len(endless["text"])) == ("Malformed", cli.LINE_BYTES_MAX)
    assert after["error"] is None


@pytest.mark.parametrize("extra", [-2, -1, 0, 1, 2, cli.LINE_BYTES_MAX - 1, cli.LINE_BYTES_MAX])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_line_about_the_limit_is_one_line(extra: int, end: bytes) -> None:
    content = b"1" * (cli.LINE_BYTES_MAX + extra)
    texts = [text for block in cli.blocks(io.BytesIO(content + end + b"next" if end else content)) for text in block]
    assert texts[1:] == (["next"] if end else [])
    assert content.decode().startswith(texts[0].rstrip("\r"))
    assert len(texts[0]) <= cli.LINE_BYTES_MAX


def test_show_prints_the_bundle(run: Run, bundle: Bundle) -> None:
    outcome = run("--show")
    assert outcome.returncode == 0
    shown = json.loads(outcome.stdout)
    assert list(shown) == ["seq", "issued", "expires", "prev_hex", "domain", "keys", "revocations"]
    assert (shown["seq"], shown["domain"]) == (42, "demo.example")
    assert [key["kid"] for key in shown["keys"]] == [key.kid for key in bundle.keys]


def test_show_takes_no_text(run: Run, genuine: str) -> None:
    assert run("--show", genuine).returncode == 2


@pytest.mark.parametrize("arguments", [("--json",), ()])
def test_bundle_that_cannot_be_read_or_trusted_exits_2(run: Run, folder: Path, arguments: tuple[str, ...]) -> None:
    (folder / "stranger.txt").write_bytes(b"10091cb3c34cb12b700c62a34e1ac0e5e2c1d4e2eca9cbe93d20f518ae6d5122\n")
    (folder / "noise.cbor").write_bytes(b"noise")
    for outcome, reason in [
        (run(*arguments, trust="absent"), "cannot read"),
        (run(*arguments, trust="."), "cannot read"),
        (run(*arguments, root="absent"), "cannot read"),
        (run(*arguments, root="stranger.txt"), "ForeignRoot: "),
        (run(*arguments, root="noise.cbor"), "ForeignRoot: "),
        (run(*arguments, trust="noise.cbor"), "TrustMalformed: "),
        (run(*arguments, trust="/dev/zero"), "TrustMalformed: "),
    ]:
        assert (outcome.returncode, outcome.stdout) == (2, b"")
        assert outcome.stderr.decode().startswith("fanxing-verify: ")
        assert reason in outcome.stderr.decode()


def test_bad_usage_exits_2(run: Run, folder: Path) -> None:
    assert run("--nonsense").returncode == 2
    missing = subprocess.run(
        [sys.executable, "-m", "offline_sdk"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT_FOLDER)},
        capture_output=True,
        check=False,
    )
    assert missing.returncode == 2
    assert b"--root" in missing.stderr


def test_closed_stdin_exits_2(run: Run, folder: Path) -> None:
    command = f"'{sys.executable}' -m offline_sdk --trust trust.cbor --root root.txt <&-"
    environment = os.environ | {"PYTHONPATH": str(ROOT_FOLDER)}
    outcome = subprocess.run(["sh", "-c", command], cwd=folder, env=environment, capture_output=True, check=False)
    assert outcome.returncode == 2
    assert b"Traceback" not in outcome.stderr


def test_reader_that_goes_away_is_no_crash(run: Run, folder: Path, genuine: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "offline_sdk", "--trust", "trust.cbor", "--root", "root.txt", "--json"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT_FOLDER)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(f"{genuine}\n".encode() * 3)
        process.stdin.close()
        complaint = process.stderr.read()
        assert (process.wait(timeout=60), complaint) == (program.EXIT_BROKEN_PIPE, b"")


def test_help_tells_the_exit_statuses(run: Run) -> None:
    outcome = run("--help")
    assert outcome.returncode == 0
    assert b"exit status" in outcome.stdout
    assert b"--show" in outcome.stdout


def test_store_remembers_and_refuses_an_older_file(
    run: Run, folder: Path, bundle: Bundle, publisher: Signer, publish: Callable[[bytes], bytes], genuine: str
) -> None:
    def start(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "offline_sdk", "--root", "root.txt", "--state", "store", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT_FOLDER)},
            capture_output=True,
            check=False,
        )

    assert (start(genuine).returncode, b"TrustMissing" in start(genuine).stderr) == (2, True)
    assert start("--update", "trust.cbor", "--json", genuine).returncode == 0
    assert start(genuine).returncode == 0
    (folder / "old.cbor").write_bytes(trust_file(bundle, publisher, publish, seq=41))
    older = start("--update", "old.cbor", genuine)
    assert (older.returncode, older.stdout) == (2, b"")
    assert b"BundleRollback: " in older.stderr
    assert json.loads(start("--show").stdout)["seq"] == 42
    # A clock that was ahead when the store last ran: this one is behind it now.
    memory = folder / "store" / "memory.json"
    content = json.loads(memory.read_text())
    memory.write_text(json.dumps(content | {"seen": content["seen"] + 3_600}))
    asked = start(genuine)
    assert (asked.returncode, asked.stdout.startswith(b"ASK ClockSuspect, GTIN 06901234567892")) == (1, True)
    # A damaged cache is said, and repaired by the file.
    (folder / "store" / "trust.cbor").write_bytes(b"noise")
    assert start(genuine).returncode == 2
    repaired = start("--update", "trust.cbor", genuine)
    assert b"TrustMalformed" in repaired.stderr
    assert json.loads(start("--show").stdout)["seq"] == 42


@pytest.mark.parametrize(
    "arguments",
    [("--trust", "trust.cbor", "--state", "s"), ("--trust", "trust.cbor", "--update", "trust.cbor"), ()],
    ids=str,
)
def test_trust_and_state_exclude_each_other(arguments: tuple[str, ...], folder: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--root", str(folder / "root.txt"), *arguments])
    assert caught.value.code == 2


def test_typed_line_is_answered_before_the_next_is_typed(run: Run, folder: Path, genuine: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "offline_sdk", "--trust", "trust.cbor", "--root", "root.txt", "--json"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT_FOLDER)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text in (genuine, "x", genuine):
            process.stdin.write(text.encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["text"] == text
        process.stdin.close()
        assert process.wait(timeout=60) == 1
