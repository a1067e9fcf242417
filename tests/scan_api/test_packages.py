"""The print house's side of code packages over real HTTP: fetched as often as allowed, audited, reported back."""

import hashlib
import os
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlmodel import col, select, update

from codes import orders, packages
from codes.orders import CodeOrder
from codes.packages import CodePackage, links
from codes.packages.links import PackageFetch, PackageLink
from codes.packages.reports import PackageReport
from codes.packages.sealing import Sealed
from kit.db import Session
from kit.ids import new_id
from offline_sdk import Profile
from scan_api.middleware import BODY_BYTES_MAX
from tests.scan_api.test_commands import Terminal
from tests.stand import GTIN, MakeStand, Stand

RECIPIENT = "age1qcdqj7fkdle7yu676ttpahc05ecx7248vvjt3jds2y03y9uhe39srx83t3"
FORM = {"accept": "text/html,application/xhtml+xml", "sec-fetch-site": "same-origin"}
CONTENT = os.urandom(3_000_000)
FIRST_HUNDRED = [(0, 99)]


@dataclass(frozen=True)
class Shelved:
    """A package on the stand's shelf, and a link to it."""

    package_id: uuid.UUID
    link_id: uuid.UUID
    code: str
    path: str
    """Of its page."""

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.code}"}


def shelve(stand: Stand, fetches: int = 1, order_id: int | None = None, spans: Any = FIRST_HUNDRED) -> Shelved:
    """Register a package of a new order of 1,000 items, or of the one that is named, and make a link to it."""
    now = datetime.now(UTC)

    async def work(session: Session) -> tuple[CodePackage, PackageLink, str]:
        if order_id is None:
            plan = await orders.plan(session, GTIN, 1_000, (Profile.OUTER,), "https://id.example.cn")
            order = await orders.place(session, plan, now)
        else:
            order = await session.get_one(CodeOrder, order_id)
        sealed = Sealed(hashlib.sha256(CONTENT).digest(), len(CONTENT), 3)
        made = await packages.register(session, order, new_id(), "spring", [RECIPIENT], spans, sealed, None, now)
        return made, *await links.create(session, made, "Sun Press", timedelta(days=7), fetches, now)

    package, link, code = stand.run(work)
    path = package.path(stand.home)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(CONTENT)
    return Shelved(package.package_id, link.link_id, code, f"/packages/{package.package_id}")


def outcomes(stand: Stand, shelved: Shelved) -> list[str]:
    tried = select(PackageFetch.outcome).where(PackageFetch.package_id == shelved.package_id)
    return stand.rows(tried.order_by(col(PackageFetch.fetch_id)))


def refusal(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["code"])


def test_a_package_arrives_whole_and_is_counted(stand: Stand) -> None:
    shelved = shelve(stand)
    answer = stand.http.post(shelved.path, headers=shelved.bearer)
    assert answer.status_code == 200
    assert answer.content == CONTENT
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["content-disposition"] == f'attachment; filename="{shelved.package_id}.tar.age"'
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    [tried] = stand.rows(select(PackageFetch).where(PackageFetch.package_id == shelved.package_id))
    assert (tried.outcome, tried.link_id, tried.remote) == ("fetched", shelved.link_id, "127.0.0.1")


def test_fetched_twice_where_once_is_allowed_is_refused(stand: Stand) -> None:
    shelved = shelve(stand)
    assert stand.http.post(shelved.path, data={"fetch_code": shelved.code}).content == CONTENT
    assert refusal(stand.http.post(shelved.path, data={"fetch_code": shelved.code}), 409) == "PackageLinkSpent"
    assert outcomes(stand, shelved) == ["fetched", "spent"]


def test_of_many_at_once_exactly_as_many_as_allowed_get_it(stand: Stand) -> None:
    shelved = shelve(stand, fetches=3)
    answers = stand.at_once([{"url": shelved.path, "headers": shelved.bearer}] * 12)
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [409] * 9
    assert all(answer.content == CONTENT for answer in answers if answer.status_code == 200)
    assert sorted(outcomes(stand, shelved)) == ["fetched"] * 3 + ["spent"] * 9
    [link] = stand.rows(select(PackageLink).where(PackageLink.link_id == shelved.link_id))
    assert link.fetches == 3


@pytest.mark.parametrize(
    ("change", "code", "outcome"),
    [
        ({"expires_at": datetime(2026, 1, 1, tzinfo=UTC)}, "PackageLinkExpired", "expired"),
        ({"revoked_at": datetime(2026, 1, 1, tzinfo=UTC)}, "PackageLinkRevoked", "revoked"),
    ],
)
def test_an_ended_link_says_how_it_ended(stand: Stand, change: dict[str, Any], code: str, outcome: str) -> None:
    shelved = shelve(stand)
    stand.execute(update(PackageLink).where(col(PackageLink.link_id) == shelved.link_id).values(change))
    assert refusal(stand.http.post(shelved.path, headers=shelved.bearer), 409) == code
    assert outcomes(stand, shelved) == [outcome]


def test_wrong_package_and_wrong_code_are_answered_alike(stand: Stand) -> None:
    shelved, other = shelve(stand), shelve(stand)
    guesses = [
        (shelved.path, {"Authorization": f"Bearer {other.code}"}),
        (shelved.path, {"Authorization": f"Basic {shelved.code}"}),
        (shelved.path, {}),
        (f"/packages/{uuid.uuid4()}", shelved.bearer),
    ]
    answers = [stand.http.post(path, headers=headers) for path, headers in guesses]
    assert {refusal(answer, 404) for answer in answers} == {"PackageUnknown"}
    assert len({answer.text for answer in answers}) == 1
    assert outcomes(stand, shelved) == ["unknown-secret"] * 3


def test_a_file_that_is_not_there_costs_no_fetch(stand: Stand) -> None:
    shelved = shelve(stand)
    path = stand.home / "packages" / f"{shelved.package_id}.tar.age"
    path.rename(path.with_suffix(".away"))
    assert refusal(stand.http.post(shelved.path, headers=shelved.bearer), 503) == "PackageFileMissing"
    assert outcomes(stand, shelved) == []
    path.with_suffix(".away").rename(path)
    assert stand.http.post(shelved.path, headers=shelved.bearer).content == CONTENT


@pytest.mark.parametrize(("language", "word"), [("zh", "领取码"), ("en", "Fetch code")])
def test_the_page_is_the_same_for_every_package(stand: Stand, language: str, word: str) -> None:
    shelved = shelve(stand)
    pages = []
    for package_id in (str(shelved.package_id), str(uuid.uuid4())):
        headers = {"accept": FORM["accept"], "accept-language": language}
        answer = stand.http.get(f"/packages/{package_id}", headers=headers)
        assert answer.status_code == 200
        assert word in answer.text
        assert "<script" not in answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        pages.append(re.sub(r'name="report_id" value="[^"]+"', "", answer.text).replace(package_id, ""))
    assert pages[0] == pages[1]
    assert outcomes(stand, shelved) == []


def fields(html: str, action: str) -> dict[str, str]:
    """Names and values of the fields of the form with this action."""
    form = re.search(rf'<form[^>]*action="{re.escape(action)}".*?</form>', html, re.DOTALL)
    assert form is not None
    inputs = [dict(re.findall(r'([a-z-]+)="([^"]*)"', one)) for one in re.findall(r"<input[^>]*>", form[0])]
    return {one["name"]: one.get("value", "") for one in inputs}


def test_a_browser_fetches_and_reports_without_javascript(stand: Stand) -> None:
    shelved = shelve(stand)
    page = stand.http.get(shelved.path, headers=FORM).text
    form = fields(page, shelved.path)
    assert form == {"fetch_code": ""}
    assert stand.http.post(shelved.path, data={"fetch_code": f" {shelved.code} "}, headers=FORM).content == CONTENT

    spent = stand.http.post(shelved.path, data={"fetch_code": shelved.code}, headers=FORM)
    assert spent.status_code == 409
    assert "PackageLinkSpent" in spent.text
    assert shelved.code not in spent.text

    form = fields(page, "/web/package-report") | {"fetch_code": shelved.code, "printed": "9-0", "spoiled": "90-99"}
    wrong = stand.http.post("/web/package-report", data=form, headers=FORM)
    assert wrong.status_code == 400
    again = fields(wrong.text, "/web/package-report")
    assert again == {**form, "overprinted": "", "fetch_code": ""}
    taken = stand.http.post(
        "/web/package-report", data=again | {"printed": "0-89", "fetch_code": shelved.code}, headers=FORM
    )
    assert taken.status_code == 202
    assert "90" in taken.text
    assert fields(taken.text, "/web/package-report")["report_id"] != again["report_id"]
    [report] = stand.rows(select(PackageReport).where(PackageReport.package_id == shelved.package_id))
    assert (str(report.report_id), report.state, report.link_id) == (again["report_id"], "received", shelved.link_id)


@pytest.mark.parametrize("path", ["", "/web/package-report"])
def test_another_sites_form_is_refused(stand: Stand, path: str) -> None:
    shelved = shelve(stand)
    form = {"fetch_code": shelved.code, "package_id": str(shelved.package_id), "report_id": str(uuid.uuid4())}
    answer = stand.http.post(path or shelved.path, data=form, headers={"sec-fetch-site": "cross-site"})
    assert refusal(answer, 403) == "CrossSiteForm"
    assert outcomes(stand, shelved) == []


def test_a_report_is_taken_down_once_and_changes_nothing(stand: Stand) -> None:
    shelved = shelve(stand)
    body = {"report_id": str(uuid.uuid4()), "printed": "0-94", "spoiled": "95-99", "overprinted": "20-21"}
    url = f"{shelved.path}/report"
    answers = [stand.http.post(url, json=body, headers=shelved.bearer) for _ in range(2)]
    for answer in answers:
        assert answer.status_code == 202
        assert answer.json() == {
            "report_id": body["report_id"],
            "state": "received",
            "on_sale": 93,
            "spoiled": 5,
            "overprinted": 2,
        }
    assert len(stand.rows(select(PackageReport).where(PackageReport.package_id == shelved.package_id))) == 1
    differs = stand.http.post(url, json=body | {"printed": "0-93"}, headers=shelved.bearer)
    assert refusal(differs, 409) == "ReportDiffers"
    contradicts = {"report_id": str(uuid.uuid4()), "printed": "95"}
    assert refusal(stand.http.post(url, json=contradicts, headers=shelved.bearer), 409) == "ReportContradicts"
    outside = {"report_id": str(uuid.uuid4()), "printed": "100"}
    assert refusal(stand.http.post(url, json=outside, headers=shelved.bearer), 400) == "ReportInvalid"
    order_states = select(CodeOrder.state, CodeOrder.has_ranges).join(
        CodePackage, col(CodePackage.order_id) == CodeOrder.order_id
    )
    assert stand.rows(order_states.where(CodePackage.package_id == shelved.package_id)) == [("dormant", False)]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"report_id": "1", "printed": "0"},
        {"report_id": str(uuid.uuid4()), "printed": 0},
        {"report_id": str(uuid.uuid4()), "print": "0"},
        {"report_id": str(uuid.uuid4()), "printed": "0" * 40_001},
    ],
)
def test_a_report_that_is_none_is_refused(stand: Stand, body: dict[str, Any]) -> None:
    shelved = shelve(stand)
    answer = stand.http.post(f"{shelved.path}/report", json=body, headers=shelved.bearer)
    assert refusal(answer, 400) == "RequestInvalid"


def test_a_report_larger_than_any_body_is_refused(stand: Stand) -> None:
    shelved = shelve(stand)
    answer = stand.http.post(f"{shelved.path}/report", content=b" " * (BODY_BYTES_MAX + 1), headers=shelved.bearer)
    assert refusal(answer, 413) == "BodyTooLarge"


def test_a_report_needs_the_packages_own_code(stand: Stand) -> None:
    shelved, other = shelve(stand), shelve(stand)
    body = {"report_id": str(uuid.uuid4()), "printed": "0-9"}
    for headers in ({}, other.bearer):
        answer = stand.http.post(f"{shelved.path}/report", json=body, headers=headers)
        assert refusal(answer, 404) == "PackageUnknown"
    stand.run(lambda session: links.revoke(session, shelved.link_id, datetime.now(UTC)))
    answer = stand.http.post(f"{shelved.path}/report", json=body, headers=shelved.bearer)
    assert refusal(answer, 409) == "PackageLinkRevoked"
    assert outcomes(stand, shelved) == []  # no fetch was tried


def test_what_the_brand_accepts_is_what_phones_see(make_stand: MakeStand) -> None:
    stand = make_stand()
    stand.server.start()
    dormant = stand.order("dormant")
    shelved = shelve(stand, order_id=dormant.order_id, spans=[(0, 17)])
    body = {
        "report_id": str(uuid.uuid4()),
        "printed": f"{dormant.items[0].serial}-{dormant.items[9].serial}",
        "spoiled": "10-14",
        "overprinted": "3",
    }
    url = f"{shelved.path}/report"
    assert stand.http.post(url, json=body, headers=shelved.bearer).status_code == 202

    def look(index: int) -> tuple[int, str | None, list[str]]:
        answer = stand.scan(dormant.items[index].outer)
        told = answer.json()
        return answer.status_code, told["error"], [one["step"] for one in told["timeline"] if one["step"] != "scanned"]

    assert look(0) == (200, None, ["commissioned"])
    terminal = Terminal(stand.home, stand.database_url)
    which = f"--package {shelved.package_id} --report {body['report_id']}"
    planned = terminal.ask(f"package accept {which}")
    assert (planned["dry_run"], planned["state"], planned["activated"], planned["voided"]) == (True, "received", 9, 6)
    assert look(0) == (200, None, ["commissioned"])
    done = terminal.ask(f"package accept {which} --yes")
    assert (done["state"], done["activated"], done["voided"]) == ("accepted", 9, 6)
    assert look(0) == (200, None, ["commissioned", "activated"])
    assert look(9) == (200, None, ["commissioned", "activated"])
    assert look(15) == (200, None, ["commissioned"])
    for index in (3, 10, 14):
        assert look(index)[:2] == (410, "Voided")
    assert stand.http.post(url, json=body, headers=shelved.bearer).json()["state"] == "accepted"


@pytest.mark.parametrize("stand_kind", ["sqlite"])
def test_the_log_holds_no_fetch_code(make_stand: MakeStand) -> None:
    stand = make_stand(LOG_LEVEL="DEBUG")
    stand.server.start()
    shelved = shelve(stand)
    for path in (shelved.path, f"/packages/{uuid.uuid4()}", shelved.path, f"{shelved.path}?fetch_code={shelved.code}"):
        stand.http.post(path, headers=shelved.bearer)
        stand.http.post(path, data={"fetch_code": shelved.code}, headers=FORM)
    stand.http.get(f"/packages/{shelved.code}", headers=FORM)
    stand.http.post(f"{shelved.path}/report", json={"report_id": shelved.code}, headers=shelved.bearer)
    form = {"fetch_code": shelved.code, "package_id": shelved.code, "report_id": str(uuid.uuid4()), "printed": "0"}
    for package_id in (shelved.code, str(shelved.package_id)):
        answer = stand.http.post("/web/package-report", data=form | {"package_id": package_id}, headers=FORM)
        assert shelved.code not in answer.text
    (stand.home / "packages" / f"{shelved.package_id}.tar.age").unlink()
    stand.execute(update(PackageLink).values(fetches=0))
    assert stand.http.post(shelved.path, headers=shelved.bearer).status_code == 503
    stand.server.stop()
    assert stand.server.log.count('"event": "request"') >= 13
    assert shelved.code[4:] not in stand.server.log
