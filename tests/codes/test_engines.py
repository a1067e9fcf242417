"""Engines and the signing agent: whoever makes the sections, the bytes are the same, and no worker gets a key."""

import asyncio
import multiprocessing
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from codes import runs
from codes.engines import WorkerLost
from codes.engines.local import LocalEngine
from codes.exports import ExportKind
from codes.pipeline import Section
from codes.runs import LEASE
from codes.signing_agent import (
    SECTION_ITEMS_MAX,
    AgentMissing,
    AgentRunning,
    LeasedSigner,
    SigningAgent,
    SigningRefused,
    SigningRoom,
)
from kit.db import Database
from kit.vault import Vault
from offline_sdk import Profile
from signer.custody import CustodyError
from signer.service import FileCustodyAccess
from tests.codes.conftest import NOW, PASSPHRASE, Market
from tests.codes.factory import SECRET, SmallFactory, files_in, open_factory

TEXTS = (ExportKind.CSV, ExportKind.NDJSON)
START_S_MAX = 30
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""What a cluster takes long to start for, or what is the same whichever database holds the leases."""


@pytest.fixture
async def factory(database: Database, market: Market, tmp_path: Path) -> SmallFactory:
    return await open_factory(database, market, tmp_path / "exports")


def room(factory: SmallFactory, passphrase: str = PASSPHRASE) -> SigningRoom:
    custody = FileCustodyAccess(factory.market.keys_folder, passphrase)
    url = factory.database.engine.url.render_as_string(hide_password=False)
    url = url.replace("postgresql+psycopg", "postgresql").replace("sqlite+aiosqlite", "sqlite")
    return SigningRoom(url, Vault(factory.market.vault_key), custody, _now)


def _now() -> datetime:
    return NOW


def _later() -> datetime:
    return NOW + LEASE


def _serve(path: Path, of: SigningRoom) -> None:
    SigningAgent(path, of).serve(lambda: None)


def _serve_until_a_fork(path: Path, of: SigningRoom) -> None:
    # an exception that a handler raised in this hook would be swallowed
    os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))
    SigningAgent(path, of).serve(lambda: None)


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


@contextmanager
def agent(path: Path, of: SigningRoom) -> Iterator[Path]:
    """A signing agent in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(path, of))
    process.start()
    deadline = time.monotonic() + START_S_MAX
    while not listens(path):  # the file is there a moment before anybody listens
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    try:
        yield path
    finally:
        process.terminate()
        process.join()


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agent") / "agent.sock"  # a socket's path has 107 bytes at most


@pytest.mark.parametrize("workers", [1, 2, 3])
async def test_worker_processes_make_the_same_files(factory: SmallFactory, workers: int) -> None:
    spec = factory.spec(TEXTS)
    run = await factory.begin(spec)
    await factory.carry_through(run, LocalEngine(factory.job(run), factory.access, workers))
    assert files_in(factory.folder) == factory.expected(spec)


async def test_a_killed_worker_ends_the_run_and_another_goes_on(factory: SmallFactory) -> None:
    spec = factory.spec(TEXTS)
    run = await factory.begin(spec)
    engine = LocalEngine(factory.job(run), factory.access, 2)

    def kill(_count: int) -> None:
        for process in engine._processes:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    with pytest.raises(WorkerLost, match="ended before"):
        await factory.carry_through(run, engine, kill)
    run = await factory.take_up(run)
    await factory.carry_through(run, LocalEngine(factory.job(run), factory.access, 2))
    assert files_in(factory.folder) == factory.expected(spec)


@ON_SQLITE
async def test_a_worker_that_cannot_open_the_key_says_so(factory: SmallFactory) -> None:
    run = await factory.begin(factory.spec())
    wrong = FileCustodyAccess(factory.market.keys_folder, "another passphrase")
    access = type(factory.access)(wrong, factory.market.key, factory.scheme)
    with pytest.raises(CustodyError, match="does not open"):
        await factory.carry_through(run, LocalEngine(factory.job(run), access, 1))


def test_neither_secret_shows_in_what_travels_to_a_worker(market: Market) -> None:
    custody = FileCustodyAccess(market.keys_folder, PASSPHRASE)
    assert PASSPHRASE not in repr(custody)
    assert repr(SECRET) not in repr(LeasedSigner(Path("x"), SECRET))


async def test_workers_without_keys_sign_through_the_agent(factory: SmallFactory, path: Path) -> None:
    spec = factory.spec(TEXTS)
    run = await factory.begin(spec)
    with agent(path, room(factory)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await factory.carry_through(run, LocalEngine(factory.job(run), LeasedSigner(path, SECRET), 2))
        with pytest.raises(SigningRefused, match="LeaseRefused"):  # the run is finished, and its lease with it
            LeasedSigner(path, SECRET).signer(factory.order.recipe)
    assert files_in(factory.folder) == factory.expected(spec)


async def test_the_agent_signs_what_the_lease_covers_and_nothing_else(factory: SmallFactory, path: Path) -> None:
    spec = factory.spec()
    spec = type(spec)((Profile.OUTER,), ((5, 9), (20, 29)), spec.kinds, spec.layout, 10)
    run = await factory.begin(spec)
    own = factory.access.signer(factory.order.recipe)
    with agent(path, room(factory)):
        sign = LeasedSigner(path, SECRET).signer(factory.order.recipe)
        for start, count in ((5, 5), (5, 1), (9, 1), (20, 10)):
            assert sign(Profile.OUTER, start, count) == own(Profile.OUTER, start, count)
        for face, start, count in (
            (Profile.INNER, 5, 5),
            (Profile.OUTER, 4, 1),
            (Profile.OUTER, 5, 6),
            (Profile.OUTER, 10, 1),
            (Profile.OUTER, 9, 12),
            (Profile.OUTER, 29, 2),
            (Profile.OUTER, 5, 0),
            (Profile.OUTER, 0, SECTION_ITEMS_MAX + 1),
        ):
            with pytest.raises(SigningRefused, match="does not cover"):
                sign(face, start, count)
        async with factory.database.writing() as session:
            await runs.stop(session, run)
        with pytest.raises(SigningRefused, match="lease is over"):
            sign(Profile.OUTER, 5, 1)


async def test_the_agent_knows_only_leases_that_are_good_now(factory: SmallFactory, path: Path) -> None:
    await factory.begin(factory.spec())
    with agent(path, room(factory)), pytest.raises(SigningRefused, match="no run has this lease"):
        LeasedSigner(path, bytes(32)).signer(factory.order.recipe)
    over = SigningRoom(room(factory).database_url, Vault(factory.market.vault_key), room(factory).custody, _later)
    with agent(path, over), pytest.raises(SigningRefused, match="no run has this lease"):
        LeasedSigner(path, SECRET).signer(factory.order.recipe)


async def test_a_lease_that_was_taken_up_again_makes_the_old_secret_worthless(
    factory: SmallFactory, path: Path
) -> None:
    run = await factory.begin(factory.spec())
    async with factory.database.writing() as session:
        await runs.take_up(session, await runs.run_with(session, run.run_id), b"\1" * 32, NOW)
    with agent(path, room(factory)):
        LeasedSigner(path, b"\1" * 32).signer(factory.order.recipe)
        with pytest.raises(SigningRefused):
            LeasedSigner(path, SECRET).signer(factory.order.recipe)


@ON_SQLITE
async def test_an_agent_with_the_wrong_passphrase_says_so(factory: SmallFactory, path: Path) -> None:
    await factory.begin(factory.spec())
    with agent(path, room(factory, "another passphrase")), pytest.raises(SigningRefused, match="CustodyError"):
        LeasedSigner(path, SECRET).signer(factory.order.recipe)


@ON_SQLITE
async def test_nobody_at_the_socket_is_told(factory: SmallFactory, path: Path) -> None:
    with pytest.raises(AgentMissing):
        LeasedSigner(path, SECRET).signer(factory.order.recipe)


@ON_SQLITE
async def test_a_second_agent_at_one_socket_is_refused(factory: SmallFactory, path: Path) -> None:
    with agent(path, room(factory)), pytest.raises(AgentRunning):
        SigningAgent(path, room(factory))


@ON_SQLITE
async def test_a_socket_that_a_killed_agent_left_is_taken_over(factory: SmallFactory, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    SigningAgent(path, room(factory)).server_close()


@ON_SQLITE
@pytest.mark.parametrize("sent", [b"", b"short", bytes(32) + b"\0", bytes(range(200))])
async def test_the_agent_outlives_clients_that_talk_nonsense(factory: SmallFactory, path: Path, sent: bytes) -> None:
    await factory.begin(factory.spec())
    with agent(path, room(factory)):
        for start in (b"", SECRET):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                connection.sendall(start + sent)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass
        assert len(LeasedSigner(path, SECRET).signer(factory.order.recipe)(Profile.OUTER, 0, 3).serials) == 3


async def test_leases_end_in_time(factory: SmallFactory) -> None:
    run = await factory.begin(factory.spec())
    for moment, leased in (
        (NOW, True),
        (NOW + LEASE - timedelta(microseconds=1), True),
        (NOW + LEASE, False),
    ):
        async with factory.database.reading() as session:
            found = await runs.run_leased_to(session, SECRET, moment)
        assert (found is not None) == leased
    assert run.lease_until == NOW + LEASE


@pytest.mark.slow
@ON_SQLITE
async def test_a_ray_cluster_makes_the_same_files(
    factory: SmallFactory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codes.engines.cluster import ClusterEngine

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
    spec = factory.spec(TEXTS)
    run = await factory.begin(spec)
    with agent(path, room(factory)):
        engine = ClusterEngine(factory.job(run), LeasedSigner(path, SECRET), 2, None)
        await factory.carry_through(run, engine)
    assert files_in(factory.folder) == factory.expected(spec)


@ON_SQLITE
async def test_cancelled_work_leaves_no_process_behind(factory: SmallFactory) -> None:
    run = await factory.begin(factory.spec())
    engine = LocalEngine(factory.job(run), factory.access, 2)
    async with engine:
        pids = [process.pid for process in engine._processes]
        making = asyncio.create_task(engine.render(Section(Profile.OUTER, 0, ((0, 9),))))
        await asyncio.sleep(0)
        making.cancel()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.slow
@ON_SQLITE
async def test_workers_beyond_the_cores_of_a_cluster_are_not_waited_for(
    factory: SmallFactory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codes.engines import cluster

    spec = factory.spec()
    run = await factory.begin(spec)
    engine = cluster.ClusterEngine(factory.job(run), LeasedSigner(path, SECRET), 1, None)
    hire = engine._hire

    async def hire_more() -> None:
        engine._wanted = 3
        await hire()

    monkeypatch.setattr(engine, "_hire", hire_more)
    with agent(path, room(factory)):
        await factory.carry_through(run, engine)
    assert files_in(factory.folder) == factory.expected(spec)


@ON_SQLITE
async def test_a_cluster_that_is_not_there_is_told_at_once(factory: SmallFactory, path: Path) -> None:
    from codes.engines.cluster import ClusterEngine, ClusterMissing

    run = await factory.begin(factory.spec())
    with socket.socket() as unheard:  # bound and not listening: nobody else gets the port
        unheard.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        with pytest.raises(ClusterMissing, match="refused"):
            await factory.carry_through(run, ClusterEngine(factory.job(run), LeasedSigner(path, SECRET), 1, address))


@ON_SQLITE
async def test_an_agent_that_ends_signs_nothing_more(factory: SmallFactory, path: Path) -> None:
    await factory.begin(factory.spec())
    with agent(path, room(factory)):
        sign = LeasedSigner(path, SECRET).signer(factory.order.recipe)
        assert sign(Profile.OUTER, 0, 1).serials
    with pytest.raises(AgentMissing, match="ended"):
        sign(Profile.OUTER, 0, 1)


@ON_SQLITE
async def test_an_agent_that_is_told_to_end_while_it_forks_ends(factory: SmallFactory, path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_serve_until_a_fork, args=(path, room(factory)))
    process.start()
    while not listens(path) and process.exitcode is None:  # this very connection makes it fork
        await asyncio.sleep(0.02)
    process.join(START_S_MAX)
    assert process.exitcode == 0
    assert not path.exists()


@ON_SQLITE
async def test_a_killed_agent_is_followed_by_another_while_a_worker_is_connected(
    factory: SmallFactory, path: Path
) -> None:
    await factory.begin(factory.spec())
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(path, room(factory)))
    process.start()
    while not listens(path):  # the file is there a moment before anybody listens
        assert process.is_alive()
        await asyncio.sleep(0.02)
    sign = LeasedSigner(path, SECRET).signer(factory.order.recipe)
    process.kill()
    process.join()
    with pytest.raises(AgentMissing, match="no signing agent"):
        LeasedSigner(path, SECRET).signer(factory.order.recipe)
    SigningAgent(path, room(factory)).server_close()
    del sign


async def test_an_agent_whose_database_is_away_says_so(factory: SmallFactory, path: Path, tmp_path: Path) -> None:
    away = replace(room(factory), database_url=f"sqlite:///{tmp_path}/none/none.db")
    with agent(path, away), pytest.raises(SigningRefused, match="database does not answer"):
        LeasedSigner(path, SECRET).signer(factory.order.recipe)


async def test_workers_import_nothing_from_the_folder_that_the_command_runs_in(
    factory: SmallFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes" / "__init__.py").write_text("raise SystemExit('from the working folder')")
    monkeypatch.chdir(tmp_path)
    spec = factory.spec()
    run = await factory.begin(spec)
    await factory.carry_through(run, LocalEngine(factory.job(run), factory.access, 1))
    assert files_in(factory.folder) == factory.expected(spec)
