"""The service does what /openapi.json says: schemathesis asks every operation, with data that fits and data that does
not, by callers who may and who may not; no answer is a failure of the server, and none is undescribed.
"""

import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import hypothesis
import pytest
import requests
from hypothesis import HealthCheck

from scan_api.app import description
from tests.contract.asking import Answer, Request, session_of
from tests.contract.belongings import Belongings
from tests.contract.inhabited import FAR_BRAND, World
from tests.contract.test_authorisation import quiet
from tests.stand import BRAND

SEED = 20_260_501
EXAMPLES, EXAMPLES_SLOW = 2, 60
"""Random cases for each operation, besides the examples of the description and, when slow, its boundaries."""
LEFT_OUT = frozenset({"ignored_auth", "object_level_authorization"})
"""Checks of authorisation, which test_authorisation makes of every route and caller, knowing what each may."""
TAKEN = ["2xx", "304", "400", "401", "403", "404", "409", "410", "413", "429"]
"""What may be said to a request that fits its schema: rules that no schema can tell are 400, as in check digits."""
SHARED_WITH_PAGES = frozenset({"POST /packages/{package_id}"})
"""Operations whose address is a page's as well, which /openapi.json does not describe."""

# Who is asked to try an operation, by how its path begins; the first may, as a rule.
_CALLERS = {
    "/v1/me": ("member", "stranger", "nobody"),
    "/v1/session": ("member", "nobody"),
    "/v1/claims": ("member", "stranger", "nobody"),
    "/v1/packets": ("fellow", "nobody"),
    "/v1/brand/": ("brand", "far brand", "narrow brand", "shop"),
    "/v1/crm/": ("crm", "far crm", "shop"),
    "/v1/shop/": ("shop", "far shop", "brand"),
    "/v1/regulator": ("regulator", "narrow regulator", "brand"),
    "/epcis/": ("brand", "logistics", "far brand", "narrow brand"),
    "/v1/devices": ("device", "other device", "nobody"),
    "/packages": ("print house", "nobody"),
    "/v1/callbacks": ("carrier", "cash", "nobody"),
}
_THINGS = {
    "held_id": "coupon", "webhook_id": "webhook", "campaign_id": "campaign", "benefit_id": "benefit", "rule_id": "rule",
    "redemption_id": "redemption", "purchase_id": "purchase", "capture_id": "capture", "event_id": "event",
    "package_id": "package", "packet_id": "packet", "draw_id": "draw", "program_id": "task", "brand": "brand",
    "gtin": "gtin", "serial": "serial", "epc": "epc", "device_id": "device_id", "code_path": "code_path",
}  # fmt: skip
"""What a parameter of a path is a name of, in every other case."""


@dataclass
class Session:
    """All that was asked, and what was wrong: by operation and fault, the first case of each."""

    world: World
    faults: dict[tuple[str, str], str] = field(default_factory=dict)
    operations: int = 0
    cases: int = 0

    def ask(self, operation: Any, callers: Iterator[Any], things: dict[str, str], case: Any) -> None:
        from schemathesis.core.failures import FailureGroup
        from schemathesis.core.transport import Response

        self.cases += 1
        known = {name: things[name] for name in case.path_parameters or {} if name in things}
        if case.meta.generation.mode.is_positive and self.cases % 2:
            case.path_parameters.update(known)
        kwargs = case.as_transport_kwargs(base_url="https://id.example.cn")
        kwargs["headers"].pop("Authorization", None)
        prepared = requests.Request(
            **{name: kwargs[name] for name in kwargs.keys() & _OF_REQUESTS}  # type: ignore[arg-type]
        ).prepare()
        began = time.perf_counter()
        answer = self.world.run(self.world.ask(_request(prepared), next(callers)))
        response = Response(
            status_code=answer.status,
            headers={name: [value] for name, value in answer.headers.items()},
            content=answer.body,
            request=prepared,
            elapsed=time.perf_counter() - began,
            verify=True,
        )
        # Methods beside the operation's are for schemathesis to judge: they must be refused, or answer OPTIONS.
        if prepared.method == operation.method.upper() or answer.status >= 500:
            for fault in _undescribed(answer, operation):
                self._fault(case, fault, answer)
        try:
            case.validate_response(response, excluded_checks=_left_out())
        except FailureGroup as group:
            for failure in group.exceptions:
                if type(failure).__name__ in _OF_METHODS and operation.label in SHARED_WITH_PAGES:
                    continue
                self._fault(case, f"{type(failure).__name__}: {str(failure)[:500]}", answer)

    def _fault(self, case: Any, fault: str, answer: Answer) -> None:
        kind = fault.partition(":")[0]
        asked, told = case.as_curl_command()[:600], f"{answer.status} {answer.body[:300]!r}"
        whole = f"{case.operation.label}: {fault}\n    {asked}\n    {told}"
        self.faults.setdefault((case.operation.label, f"{kind} {answer.status}"), whole)


_OF_METHODS = frozenset({"AllowHeaderMismatch", "UnsupportedMethodResponse"})
_OF_REQUESTS = frozenset({"method", "url", "headers", "params", "json", "data", "cookies", "files"})


def _left_out() -> list[Any]:
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    return [CHECKS.get_one(name) for name in sorted(LEFT_OUT)]


def _undescribed(answer: Answer, operation: Any) -> Iterator[str]:
    """What schemathesis lets pass: every operation's `default` is for refusals alone, and for no failure."""
    told = operation.definition.raw["responses"]
    if answer.status >= 500 and str(answer.status) not in told:
        yield f"Failure: {answer.status}"
    elif answer.status < 400 and str(answer.status) not in told:
        yield f"Undescribed: {answer.status} is no answer in /openapi.json"
    elif answer.status < 400 and answer.body:
        kind = answer.headers.get("content-type", "none").partition(";")[0]
        if kind not in told[str(answer.status)].get("content", {}):
            yield f"UndescribedContent: {kind} is no content of {answer.status} in /openapi.json"
    elif answer.status >= 400 and not answer.code and str(answer.status) not in told and answer.body:
        yield f"NoProblem: {answer.headers.get('content-type')}"


def _request(prepared: requests.PreparedRequest) -> Request:
    url = urlsplit(str(prepared.url))
    body = prepared.body or b""
    headers = {name.lower(): _text(value) for name, value in prepared.headers.items()}
    headers.pop("content-length", None)
    headers.setdefault("accept", "*/*")
    target = url.path + (f"?{url.query}" if url.query else "")
    return Request(str(prepared.method), target, headers, body.encode() if isinstance(body, str) else body)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def run(world: World, examples: int, modes: tuple[str, ...]) -> Session:
    """Ask every operation of the description."""
    import schemathesis
    from schemathesis.config import SchemathesisConfig
    from schemathesis.generation.hypothesis.builder import HypothesisTestConfig, HypothesisTestMode, create_test

    schema = schemathesis.openapi.from_dict(description(), config=SchemathesisConfig.from_dict({}))
    schema.config.checks.positive_data_acceptance.expected_statuses = TAKEN
    schema.config.checks.negative_data_rejection.expected_statuses += ["410", "413"]  # too long is too large first
    schema.config.generation.with_security_parameters = False  # callers bring their own
    session, mine = Session(world), Belongings(world)
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    for found in schema.get_all_operations():
        operation = found.ok()
        session.operations += 1
        names = {name: thing for name, thing in _THINGS.items() if f"{{{name}}}" in operation.path}
        things = {name: world.run(mine.get(thing)) for name, thing in names.items()}
        callers = _callers(world, operation.path)

        test = _test(session, operation, callers, things)
        config = HypothesisTestConfig(
            project=schema.config, modes=[HypothesisTestMode(mode) for mode in modes], settings=settings, seed=SEED
        )
        create_test(operation=operation, test_func=test, config=config)()
    return session


def _test(session: Session, operation: Any, callers: Iterator[Any], things: dict[str, str]) -> Callable[[Any], None]:
    def test(case: Any) -> None:
        session.ask(operation, callers, things, case)

    return test


def _callers(world: World, path: str) -> Iterator[Any]:
    """Callers by turns, those who may every other time; members are new ones, since some are erased."""
    start = max((one for one in _CALLERS if path.startswith(one)), key=len, default="")
    names = _CALLERS.get(start, ("nobody", "member", "brand"))
    groups = {"member": BRAND, "fellow": BRAND, "stranger": FAR_BRAND}
    asking: list[Any] = []
    for name in names:
        asking.append(session_of(world.run(world.enrol(groups[name])).token) if name in groups else name)
    for other in itertools.cycle(asking[1:] or asking):
        yield asking[0]
        yield other


@pytest.mark.parametrize(
    ("examples", "modes"),
    [
        (EXAMPLES, ("examples", "fuzzing")),
        pytest.param(EXAMPLES_SLOW, ("examples", "coverage", "fuzzing"), marks=pytest.mark.slow),
    ],
    ids=["some", "many"],
)
@pytest.mark.timeout(3_000)
def test_the_service_does_what_its_description_says(
    world: World, examples: int, modes: tuple[str, ...], record_property: Callable[[str, object], None]
) -> None:
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tool's own, on what it generates
        world.run(world.publish_log())
        session = run(world, examples, modes)
    record_property("asked", f"{session.operations} operations, {session.cases} cases")
    assert not session.faults, "\n" + "\n".join(session.faults.values())
