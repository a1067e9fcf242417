"""The running of a server: alive, ready, counted, described, and what it does when something it needs is away."""

import re
import uuid
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import delete
from sqlalchemy.engine import make_url
from sqlmodel import select

from scan_api.scans import Item, Scan
from signer.publication import TrustBundle
from tests.stand import GTIN, MakeStand, SignedIn, Stand, publish, wait_until
from tests.trusting import trusted

PUBLIC_PATHS = {
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/trust",
    "/v1/devices",
    "/v1/devices/{device_id}/scans",
    "/v1/sign-in/codes",
    "/v1/sign-in",
    "/v1/session",
    "/v1/me",
    "/v1/consent-documents",
    "/v1/me/birthday",
    "/v1/me/consents",
    "/v1/me/export",
    "/v1/me/merge",
    "/v1/me/merges",
    "/v1/me/sign-out-everywhere",
    "/v1/me/unmerge",
    "/v1/campaigns/{campaign_id}/terms",
    "/v1/claims",
    "/v1/brand/{brand}/orders",
    "/v1/callbacks/{provider}",
    "/v1/brand/events",
    "/v1/regulator/me",
    "/v1/regulator/accesses",
    "/v1/regulator/events",
    "/v1/regulator/evidence/{thing}",
    "/v1/regulator/recall-orders",
    "/v1/regulator/recall-orders/{recall_id}",
    "/v1/regulator/recall-orders/{recall_id}/withdraw",
    "/v1/brand/{brand}/recall-orders",
    "/v1/brand/{brand}/recall-orders/{recall_id}",
    "/v1/brand/{brand}/recall-orders/{recall_id}/acknowledge",
    "/v1/brand/{brand}/recall-orders/{recall_id}/execute",
    "/v1/brand/{brand}/recall-orders/{recall_id}/report",
    "/v1/regulator/statistics",
    "/v1/regulator/exports",
    "/v1/regulator/exports/{export_id}",
    "/v1/regulator/exports/{export_id}/parts/{number}",
    "/v1/brand/{brand}/seats",
    "/v1/brand/{brand}/places",
    "/v1/brand/{brand}/products/{gtin}/categories",
    "/v1/regulator/audit",
    "/v1/brand/{brand}/partner-shares",
    "/v1/brand/{brand}/partner-shares/{share_id}",
    "/epcis/capture",
    "/epcis/capture/{capture_id}",
    "/epcis/capture/{capture_id}/refused",
    "/epcis/events",
    "/epcis/epcs/{epc}/events",
    "/epcis/events/{event_id}",
    "/epcis/",
    "/epcis/epcs",
    "/epcis/{resource}",
    "/epcis/{resource}/{name}",
    "/epcis/{resource}/{name}/events",
    "/epcis/queries",
    "/epcis/queries/{query_name}",
    "/epcis/queries/{query_name}/events",
    "/epcis/queries/{query_name}/subscriptions",
    "/epcis/queries/{query_name}/subscriptions/{subscription_id}",
    "/epcis/locations",
    "/epcis/locations/{location}",
    "/log/checkpoint",
    "/log/consistency",
    "/log/entries/{entry_id}/proof",
    "/log/key",
    "/log/status",
    "/log/tile/{path}",
    "/v1/trace/{thing}",
    "/v1/regulator/trace/{thing}",
    "/v1/regulator/subscriptions",
    "/v1/regulator/subscriptions/{subscription_id}",
    "/v1/partner/events",
    "/v1/evidence/{thing}",
    "/v1/packing",
    "/v1/packing/contents",
    "/v1/packing/containers",
    "/v1/packing/present",
    "/v1/brand/life",
    "/v1/brand/lots",
    "/v1/packing/holding",
    "/v1/brand/sales-regions",
    "/v1/brand/stock",
    "/v1/shop/redemptions",
    "/v1/shop/purchases",
    "/v1/shop/purchases/quote",
    "/v1/shop/purchases/{purchase_id}/refunds",
    "/v1/shop/members/lookup",
    "/v1/me/cards",
    "/v1/me/cards/{brand}/changes",
    "/v1/brands/{brand}/tiers",
    "/v1/brand/{brand}/tiers",
    "/v1/brand/{brand}/earn-rules",
    "/v1/brand/{brand}/earn-rules/{rule_id}",
    "/v1/brand/{brand}/flows",
    "/v1/brands/{brand}/benefits",
    "/v1/me/benefits",
    "/v1/me/benefits/{held_id}/code",
    "/v1/me/benefits/{held_id}/open",
    "/v1/me/benefits/{held_id}/address",
    "/v1/me/benefits/{held_id}/reservation",
    "/v1/brand/{brand}/benefits/{benefit_id}/report",
    "/v1/brand/{brand}/deliveries",
    "/v1/brand/{brand}/deliveries/{held_id}",
    "/v1/brand/{brand}/reversals",
    "/v1/brand/{brand}/redemption-conflicts",
    "/v1/shop/redemptions/validate",
    "/v1/shop/redemptions/offline",
    "/v1/shop/redemptions/{redemption_id}/rollback",
    "/v1/shop/reservations",
    "/v1/shop/reservations/release",
    "/v1/regulator/items/{gtin}/{serial}",
    "/packages/{package_id}",
    "/packages/{package_id}/report",
    "/v1/brand/{brand}/links",
    "/v1/brand/{brand}/links/{link_id}",
    "/.well-known/gs1resolver",
    "/v1/brand/{brand}/webhooks",
    "/v1/brand/{brand}/webhooks/{webhook_id}",
    "/v1/brand/{brand}/webhooks/{webhook_id}/deliveries",
    "/v1/brand/{brand}/webhooks/{webhook_id}/deliveries/{event_id}/resend",
    "/v1/brand/{brand}/webhooks/{webhook_id}/disable",
    "/v1/brand/{brand}/webhooks/{webhook_id}/enable",
    "/v1/brand/{brand}/webhooks/{webhook_id}/ping",
    "/v1/brand/{brand}/webhooks/{webhook_id}/rotate",
    "/v1/me/points",
    "/{code_path}",
    "/v1/me/check-ins",
    "/v1/me/tasks",
    "/v1/me/referral",
    "/v1/me/referral/links",
    "/v1/me/packets",
    "/v1/packets/{packet_id}",
    "/v1/packets/{packet_id}/shares",
    "/v1/me/draws/{draw_id}",
    "/v1/me/draws/{draw_id}/plays",
    "/v1/draws/{draw_id}",
    "/v1/draws/{draw_id}/record",
    "/v1/crm/tasks/{program_id}/completions",
}


def test_server_is_alive_and_ready(stand: Stand) -> None:
    assert stand.scan("/healthz").json() == {"status": "ok"}
    ready = stand.scan("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ok")
    assert ready.json()["checks"]["trust_bundle_seq"] >= 1


def test_server_serves_before_the_first_bundle_and_takes_it_when_it_comes(make_stand: MakeStand) -> None:
    stand = make_stand()
    stand.execute(delete(TrustBundle))
    stand.server.start()
    item = stand.take_item()
    assert stand.scan("/healthz").status_code == 200
    ready = stand.scan("/readyz")
    assert (ready.status_code, ready.json()["status"], ready.json()["checks"]["database"]) == (503, "not ready", "ok")
    for path in (item.outer, "/v1/trust"):
        answer = stand.scan(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "TrustBundleMissing")
    page = stand.scan(item.outer, accept="text/html", accept_language="en")
    assert (page.status_code, page.headers["content-type"]) == (503, "text/html; charset=utf-8")
    stand.run(lambda session: publish(session, stand.home))
    wait_until(lambda: stand.scan("/readyz").status_code == 200, "the server to find the bundle")
    assert stand.scan(item.outer).json()["scan_count"] == 1


def _let_in(stand: Stand, allowed: bool) -> None:
    """Open the database to connections, or end all there are and let none in."""
    url = make_url(stand.database_url)
    admin = url.set(database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        alter = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        connection.execute(alter.format(sql.Identifier(url.database or ""), sql.Literal(allowed)))
        if not allowed:
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            connection.execute(end, [url.database])


@pytest.mark.parametrize("stand_kind", ["postgresql"])
def test_database_goes_away_and_comes_back(make_stand: MakeStand) -> None:
    stand = make_stand()
    stand.server.start()
    item, member = stand.take_item(), stand.member()
    assert stand.scan(item.outer).status_code == 200
    _let_in(stand, False)

    assert stand.scan("/healthz").status_code == 200
    ready = stand.scan("/readyz")
    assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "not reachable")
    for answer in (stand.scan(item.outer), stand.claim(member, item.inner), stand.scan("/v1/me", **_header(member))):
        assert (answer.status_code, answer.json()["code"]) == (503, "DatabaseUnavailable")
        assert answer.headers["cache-control"] == "no-store"
        assert uuid.UUID(answer.headers["x-request-id"])
    page = stand.scan(item.outer, accept="text/html", accept_language="en")
    assert (page.status_code, "DatabaseUnavailable" in page.text) == (503, True)

    _let_in(stand, True)
    wait_until(lambda: stand.scan("/readyz").status_code == 200, "the database to be found again")
    assert stand.scan(item.outer).json()["scan_count"] == 2
    assert stand.claim(member, item.inner).status_code == 201

    stand.run(lambda session: _rename(session, "scan", "gone"))
    before = stand.rows(select(Item.scan_count))
    answer = stand.scan(item.outer)
    assert (answer.status_code, answer.json()["code"]) == (500, "Internal")
    assert "gone" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"] in stand.server.log
    assert stand.rows(select(Item.scan_count)) == before
    stand.run(lambda session: _rename(session, "gone", "scan"))
    assert stand.scan(item.outer).json()["scan_count"] == 3
    assert len(stand.rows(select(Scan.scan_id))) == 3
    assert item.outer[20:100] not in stand.server.log
    assert member.token not in stand.server.log


def _header(member: SignedIn) -> dict[str, str]:
    return {"authorization": member.headers["Authorization"]}


async def _rename(session: Any, table: str, name: str) -> None:
    connection = await session.connection()
    await connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {name}")


def test_metrics_count_scans_claims_and_requests(stand: Stand) -> None:
    item, member = stand.take_item(), stand.member()

    def counted() -> list[float]:
        return [
            stand.metric("fanxing_scans_total", verdict="genuine"),
            stand.metric("fanxing_scans_total", verdict="BadSignature"),
            stand.metric("fanxing_claims_total", outcome="granted"),
            stand.metric("fanxing_claims_total", outcome="AlreadyClaimed"),
            stand.metric("fanxing_request_seconds_count", method="POST", route="/v1/claims", status="201"),
            stand.metric("fanxing_request_seconds_count", method="GET", route="/{code_path:code}", status="404"),
        ]

    before = counted()
    stand.scan(item.outer)
    stand.scan(stand.installation.refused["BadSignature"])
    stand.claim(member, item.inner)
    stand.claim(member, item.inner)
    assert [after - earlier for after, earlier in zip(counted(), before, strict=True)] == [1, 1, 1, 1, 1, 1]


def test_metrics_are_for_this_machine_and_name_nobody(stand: Stand) -> None:
    item, member = stand.take_item(), stand.member()
    stand.claim(member, item.inner)
    metrics = stand.scan("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert not {GTIN, item.serial, str(member.member_id)} & set(re.findall(r"[0-9a-f-]+", metrics.text))
    answer = stand.scan("/metrics", x_forwarded_for="203.0.113.7")
    assert (answer.status_code, answer.json()["code"]) == (403, "MetricsLocalOnly")


def test_trust_bundle_is_the_published_one_and_may_be_cached(stand: Stand) -> None:
    answer = stand.scan("/v1/trust")
    assert answer.headers["content-type"] == "application/cbor-seq"
    assert answer.headers["cache-control"] == "public, max-age=60"
    bundle = trusted(answer.content, stand.home / "root.pin")
    assert bundle.seq == max(stand.rows(select(TrustBundle.seq)))
    tag = answer.headers["etag"]
    for held in (tag, f"W/{tag}", f'"another", {tag}'):
        again = stand.scan("/v1/trust", if_none_match=held)
        assert (again.status_code, again.content) == (304, b"")
    assert stand.scan("/v1/trust", if_none_match='"another"').status_code == 200


@pytest.mark.parametrize("stand_kind", ["sqlite"])
class TestDescription:
    """/openapi.json says what the server does."""

    def test_every_path_is_described(self, stand: Stand) -> None:
        described = stand.scan("/openapi.json").json()
        assert described["openapi"].startswith("3.1")
        assert set(described["paths"]) == PUBLIC_PATHS
        for path, methods in described["paths"].items():
            for method, operation in methods.items():
                assert operation["summary"], (method, path)
                assert operation["description"], (method, path)
        ids = [operation["operationId"] for methods in described["paths"].values() for operation in methods.values()]
        assert len(set(ids)) == len(ids)

    def test_every_reference_leads_somewhere(self, stand: Stand) -> None:
        described = stand.scan("/openapi.json")
        for reference in re.findall(r'"\$ref":"#/([^"]*)"', described.text):
            at = described.json()
            for part in reference.split("/"):
                at = at[part]

    def test_refusals_are_described_as_they_are(self, stand: Stand) -> None:
        described = stand.scan("/openapi.json").json()
        for methods in described["paths"].values():
            for operation in methods.values():
                assert "422" not in operation["responses"]
                refusal = operation["responses"]["default"]["content"]["application/problem+json"]["schema"]
                assert refusal == {"$ref": "#/components/schemas/Problem"}
        body = described["components"]["schemas"]["Problem"]
        given = stand.http.post("/v1/claims", json={}).json()
        assert set(body["required"]) <= set(given) <= set(body["properties"])

    def test_no_page_runs_scripts_of_another_site(self, stand: Stand) -> None:
        for path in ("/docs", "/redoc"):
            assert stand.scan(path, accept="text/html").status_code == 404


def test_load_balancers_may_ask_with_head(stand: Stand) -> None:
    assert [stand.http.head(path).status_code for path in ("/healthz", "/readyz", "/v1/trust")] == [200] * 3


@pytest.mark.parametrize("header", ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"])
def test_metrics_are_not_for_those_behind_a_proxy(stand: Stand, header: str) -> None:
    answer = stand.http.get("/metrics", headers={header: "203.0.113.9"})
    assert (answer.status_code, answer.json()["code"]) == (403, "MetricsLocalOnly")
