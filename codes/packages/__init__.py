"""Code packages (码包): exports of an order sealed for a print house, each named and counted.

`sealing` makes and opens the files, `links` hands them out, `reports` takes back what was printed of them.
"""

import json
import uuid
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from sqlalchemy import BigInteger, CheckConstraint, LargeBinary, Text, UniqueConstraint
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, SQLModel, col, select

from codes.acts import record_act
from codes.orders import CodeOrder
from codes.packages.sealing import Sealed, recipients_of
from kit.db import Moment, Session
from kit.errors import Conflict, Invalid, NotFound

FOLDER = "packages"
"""Where package files lie in the data folder."""
NAME_CHARACTERS_MAX = 80


class PackageNameInvalid(Invalid):
    code = "PackageNameInvalid"


class PackageNameTaken(Conflict):
    code = "PackageNameTaken"


class PackageRangesInvalid(Invalid):
    code = "PackageRangesInvalid"


class PackageUnknown(NotFound):
    code = "PackageUnknown"


class CodePackage(SQLModel, table=True):
    """A sealed export. What it holds is told by ranges of issue indexes, both ends included."""

    __tablename__: ClassVar[str] = "code_package"
    __table_args__ = (
        UniqueConstraint("order_id", "name"),
        CheckConstraint("items > 0", name="items"),
        CheckConstraint("bytes > 0", name="bytes"),
    )

    package_id: uuid.UUID = Field(primary_key=True)
    order_id: int = Field(foreign_key="code_order.order_id")
    name: str = Field(sa_type=Text)
    recipients: str = Field(sa_type=Text)
    """The public keys that it is sealed for, separated by blanks."""
    items: int = Field(sa_type=BigInteger)
    ranges: str = Field(sa_type=Text)
    """[[first, last], …] as JSON, ascending."""
    sha256: bytes = Field(sa_type=LargeBinary)
    bytes: int = Field(sa_type=BigInteger)
    file_name: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=Moment)
    by: str | None = Field(default=None, sa_type=Text)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The issue indexes in the package: first and last of each range, ascending."""
        return [(first, last) for first, last in json.loads(self.ranges)]

    def path(self, home: Path) -> Path:
        """Its file, in this data folder."""
        return home / FOLDER / self.file_name


def file_name(package_id: uuid.UUID) -> str:
    """The name of a package's file, which is also what the print house sees."""
    return f"{package_id}.tar.age"


async def require_name(session: Session, order: CodeOrder, name: str) -> None:
    """Raises PackageNameInvalid (1 to 80 printable characters) and PackageNameTaken."""
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX or not name.isprintable() or name != name.strip():
        raise PackageNameInvalid(
            f"a package's name is 1 to {NAME_CHARACTERS_MAX} printable characters, with no blank at either end"
        )
    known = select(CodePackage.package_id).where(CodePackage.order_id == order.order_id, CodePackage.name == name)
    if (await session.exec(known)).first() is not None:
        raise _taken(order, name)


def _taken(order: CodeOrder, name: str) -> PackageNameTaken:
    return PackageNameTaken(
        f"order {order.order_number:05d} of {order.gtin} has a package {name!r}", hint="Choose another name."
    )


async def register(
    session: Session,
    order: CodeOrder,
    package_id: uuid.UUID,
    name: str,
    recipients: Sequence[str],
    spans: Sequence[tuple[int, int]],
    sealed: Sealed,
    by: str | None,
    now: datetime,
) -> CodePackage:
    """Store what was sealed into `file_name(package_id)`.

    `spans`: the issue indexes in it, first and last of each range. Raises PackageNameInvalid, PackageNameTaken,
    RecipientInvalid, and PackageRangesInvalid unless the ranges ascend, lie in the order and do not touch.
    """
    await require_name(session, order, name)
    ends = [end for span in spans for end in span]
    ascending = all(first <= last for first, last in spans) and all(
        here[1] + 1 < there[0] for here, there in pairwise(spans)
    )
    if not ends or not ascending or ends[0] < 0 or ends[-1] >= order.quantity:
        raise PackageRangesInvalid(f"a package's ranges ascend and lie in 0 to {order.quantity - 1:,}")
    assert order.order_id is not None  # rows read from the database have their key
    taken = _taken(order, name)  # written beforehand: a failed flush expires every row
    package = CodePackage(
        package_id=package_id,
        order_id=order.order_id,
        name=name,
        recipients=" ".join(recipients_of(recipients)),
        items=sum(last - first + 1 for first, last in spans),
        ranges=json.dumps([list(span) for span in spans], separators=(",", ":")),
        sha256=sealed.sha256,
        bytes=sealed.bytes,
        file_name=file_name(package_id),
        created_at=now,
        by=by,
    )
    session.add(package)
    try:
        await session.flush()
    except IntegrityError:
        raise taken from None
    detail = {"package": str(package_id), "name": name, "items": package.items}
    await record_act(session, package.order_id, "package_sealed", by, detail, now)
    return package


async def package_with(session: Session, package_id: uuid.UUID) -> CodePackage:
    """Raises PackageUnknown."""
    package = await session.get(CodePackage, package_id)
    if package is None:
        raise PackageUnknown(f"there is no package {package_id}", hint="`fanxing package list` shows the packages.")
    return package


async def packages_of(session: Session, order_id: int | None = None) -> Sequence[CodePackage]:
    """All packages, or one order's, oldest first."""
    query = select(CodePackage).order_by(col(CodePackage.created_at), col(CodePackage.package_id))
    if order_id is not None:
        query = query.where(CodePackage.order_id == order_id)
    return (await session.exec(query)).all()
