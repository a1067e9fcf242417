"""What commands share that make an order's codes: where and by how many workers, told while it lasts."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from codes.engines import Engine
from codes.engines.cluster import ClusterEngine
from codes.engines.inline import InlineEngine
from codes.engines.local import LocalEngine
from codes.exports import ExportKind, section_items
from codes.exports.archive import unpack
from codes.exports.layout import Layout
from codes.manifest import MANIFEST_NAME
from codes.orders import CodeOrder
from codes.production import Production, bytes_needed
from codes.ranges import IndexRange
from codes.rendering import Job
from codes.runs import ExportRun, Part, RunSpec
from codes.serials import SerialScheme
from codes.signing import CustodyAccess
from codes.signing_agent import SECRET_BYTES, LeasedSigner
from kit.clock import system_clock
from kit.errors import Invalid
from kit.files import require_free
from offline_sdk.code_text import Profile
from scan_api.commands import terminal
from scan_api.commands.terminal import Workshop
from signer.keys import SigningKey

WORKERS_MAX = 256


class EngineInvalid(Invalid):
    code = "EngineInvalid"


class EngineKind(StrEnum):
    LOCAL = "local"
    RAY = "ray"


Exports = Annotated[list[ExportKind] | None, typer.Option("--export", help="A form to write; may be given again.")]
Folder = Annotated[Path | None, typer.Option("--out", help="Folder for the exports; default: in the data folder.")]
Unpack = Annotated[
    bool, typer.Option("--unpack", help="Pictures in folders too, beside the archives that the manifest speaks of.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, max=WORKERS_MAX, help="Default: the cores of machine or cluster.")
]
EngineOption = Annotated[EngineKind, typer.Option("--engine", help="This machine, or a Ray cluster.")]
RayAddress = Annotated[
    str | None, typer.Option(help="The cluster, such as auto or host:6379; default: one of this machine alone.")
]
Agent = Annotated[
    Path | None,
    typer.Option(help="Socket of the signing agent on each worker's machine (`fanxing signer agent`); Ray needs it."),
]


@dataclass(frozen=True, slots=True)
class Force:
    """By whom a run is done."""

    workers: int | None
    engine: EngineKind
    ray_address: str | None
    agent: Path | None

    def check(self) -> None:
        """Raises EngineInvalid."""
        if self.engine is EngineKind.RAY and self.agent is None:
            raise EngineInvalid(
                "Ray workers hold no key and sign through their machine's agent",
                hint="Start `fanxing signer agent` on every node, then name its socket with --agent.",
            )

    def open(self, job: Job, access: CustodyAccess, secret: bytes, sections: int) -> Engine:
        """The engine for a job of so many sections."""
        if self.engine is EngineKind.RAY:
            assert self.agent is not None  # `check` has seen to it
            return ClusterEngine(job, LeasedSigner(self.agent.absolute(), secret), self.workers, self.ray_address)
        workers = min(self.workers or len(os.sched_getaffinity(0)), max(1, sections))
        if self.agent is not None:
            return LocalEngine(job, LeasedSigner(self.agent.absolute(), secret), workers)
        if workers == 1:
            return InlineEngine(job, access.signer(job.recipe))
        return LocalEngine(job, access, workers)


@dataclass(frozen=True, slots=True)
class Tools:
    """What an order's codes are made with, apart from the order itself."""

    key: SigningKey
    scheme: SerialScheme


def spec_of(
    order: CodeOrder,
    kinds: Sequence[ExportKind],
    layout: Layout,
    *,
    faces: Sequence[Profile] | None = None,
    ranges: Sequence[IndexRange] | None = None,
) -> RunSpec:
    """What a run makes; the whole order unless told otherwise. Raises LayoutInvalid."""
    return RunSpec(
        faces=tuple(faces or order.faces),
        ranges=tuple((one.first, one.last) for one in ranges) if ranges else ((0, order.quantity - 1),),
        kinds=tuple(kinds),
        layout=layout,
        section_items=section_items(kinds, order.recipe, layout),
    )


def folder_of(shop: Workshop, order: CodeOrder, again_at: datetime | None = None) -> Path:
    """Where an order's exports go when no folder is named: the first, and those that are made again at some moment."""
    moment = f"-{again_at:%Y%m%d-%H%M%S}" if again_at else ""
    return shop.settings.home / "orders" / f"{order.gtin}-{order.order_number:05d}{moment}"


def require_room(folder: Path, order: CodeOrder, spec: RunSpec) -> None:
    """Raises DiskFull when the run's files have no room in the folder."""
    require_free(folder, bytes_needed(order, spec))


async def make(
    shop: Workshop,
    order: CodeOrder,
    run: ExportRun,
    secret: bytes,
    tools: Tools,
    force: Force,
    *,
    unpacked: bool = False,
    as_json: bool,
) -> dict[str, Any]:
    """Carry a run through, with a progress bar, or with JSON lines on standard error. Returns what was made."""
    spec = RunSpec.from_text(run.spec)
    access = CustodyAccess(shop.custody_access, tools.key, tools.scheme)
    job = Job(order.recipe, spec.kinds, spec.layout)
    work = Production(
        shop.database, order, run, lambda message: shop.signer.sign_many(tools.key, [message])[0], system_clock
    )
    total = spec.items * len(spec.faces)
    with terminal.progress("Signing and writing", "codes", total, as_json=as_json) as advance:
        async with force.open(job, access, secret, spec.section_count) as engine:
            made = await work.carry_through(engine, advance)
    folder = Path(run.folder)
    if unpacked:
        await asyncio.to_thread(_unpack, folder, made)
    files = sorted({file.path.split("/")[0] for file in made})
    return {
        "run": str(run.run_id),
        "codes": total,
        "files": [str(folder / name) for name in (*files, MANIFEST_NAME)],
    }


def _unpack(folder: Path, files: Sequence[Part]) -> None:
    for file in files:
        if file.path.endswith(".zip"):
            unpack(folder / file.path, (folder / file.path).with_suffix(""))


def new_secret() -> bytes:
    """The secret of a run's lease."""
    return os.urandom(SECRET_BYTES)
