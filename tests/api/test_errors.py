"""Errors: every status of the contract, always with the envelope and a request id."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.api_here import api_here
from tests.support.processes import free_port, wait_until
from tests.support.stack import ADMIN_KEY, Api, PrefectStack, api_process
from tests.support.web import WEB

TRIGGER = "/workflows/trigger/demo.typed"
RUNS = "/workflows/runs"
NEVER_A_RUN = "00000000-0000-0000-0000-000000000000"
JSON = {"Content-Type": "application/json"}
LIMIT = 1024 * 1024


def assert_envelope(response: httpx.Response, status: int, *parts: str) -> dict[str, Any]:
    """The answer has this status, one sentence that contains `parts`, and a request id."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Request-ID"]
    body: dict[str, Any] = response.json()
    assert set(body) <= {"detail", "errors"}
    detail = body["detail"]
    assert isinstance(detail, str)
    assert detail[0] == detail[0].upper()
    assert detail[-1] in ".?"
    assert "\n" not in detail
    for part in parts:
        assert part in detail
    return body


def forget(stack: PrefectStack, run: str) -> None:
    """Delete a run; Prefect sometimes answers 503 first."""
    wait_until(lambda: stack.http.delete(f"/flow_runs/{run}").status_code in (204, 404), "the run to be deleted", 60)


@pytest.fixture(scope="module")
def finished(stack: PrefectStack) -> str:
    return stack.make_run(stack.flow_id("demo.errors"), "COMPLETED")


def test_400_lists_each_invalid_parameter(api: Api) -> None:
    params = {"day": "someday", "tier": "Z", "speed": 9}
    body = assert_envelope(api.client.post(TRIGGER, json={"params": params}), 400, "demo.typed", "day", "tier", "speed")
    assert {tuple(error["loc"])[:3] for error in body["errors"]} == {("body", "params", name) for name in params}
    assert all(isinstance(error["msg"], str) and set(error) == {"loc", "msg"} for error in body["errors"])


def test_401_without_a_credential(api: Api) -> None:
    assert_envelope(WEB.get(f"{api.url}/api/v1{RUNS}"), 401, "X-API-Key")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{RUNS}/{NEVER_A_RUN}"),
        ("GET", f"{RUNS}/nonsense"),
        ("GET", f"{RUNS}/%00"),
        ("POST", f"{RUNS}/{NEVER_A_RUN}/cancel"),
        ("POST", f"{RUNS}/nonsense/cancel"),
        ("POST", f"{RUNS}/{NEVER_A_RUN}/retry"),
        ("POST", f"{RUNS}/nonsense/retry"),
        ("POST", "/workflows/trigger/demo.typo"),
        ("POST", "/workflows/trigger/a%00b"),
        ("GET", "/workflows/definitions/demo.typo"),
    ],
)
def test_404_for_unknown_names_and_malformed_ids(method: str, path: str, api: Api) -> None:
    assert "errors" not in assert_envelope(api.client.request(method, path), 404)


def test_404_suggests_similar_workflow_names(api: Api) -> None:
    assert_envelope(api.client.post("/workflows/trigger/demo.typd"), 404, "'demo.typd'", "'demo.typed'")


def test_404_also_on_postgresql_with_a_key_and_a_name_that_it_cannot_store(postgresql_api: Api) -> None:
    response = postgresql_api.client.post("/workflows/trigger/a%00b", headers={"Idempotency-Key": uuid4().hex})
    assert_envelope(response, 404)


def test_409_when_the_state_of_a_run_does_not_allow_it(api: Api, finished: str) -> None:
    assert_envelope(api.client.post(f"{RUNS}/{finished}/cancel"), 409, finished)
    assert_envelope(api.client.post(f"{RUNS}/{finished}/retry"), 409, finished)


def test_409_for_a_flow_that_has_no_deployment(api: Api, finished: str) -> None:
    assert_envelope(api.client.post("/workflows/trigger/demo.errors"), 409, "demo.errors", "deployment")


def test_413_for_a_body_whose_declared_length_is_too_large(api: Api) -> None:
    assert_envelope(api.client.post(TRIGGER, content=b" " * (LIMIT + 1), headers=JSON), 413, "1,048,576")


def test_413_for_a_too_large_body_without_a_declared_length(api: Api) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(LIMIT // 65_536 + 2):
            yield b" " * 65_536

    response = api.client.post(TRIGGER, content=endless(), headers=JSON)
    assert "Content-Length" not in response.request.headers
    assert_envelope(response, 413, "1,048,576")


def test_a_body_of_exactly_the_limit_is_accepted(api: Api) -> None:
    whole = b'{"params": {}}'.ljust(LIMIT)
    assert_envelope(api.client.post("/workflows/trigger/demo.typo", content=whole, headers=JSON), 404)


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_415_for_a_body_that_is_not_json(media_type: str | None, api: Api) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    assert_envelope(api.client.post(TRIGGER, content=b"{}", headers=headers), 415, "application/json")


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON", "application/x+json"])
def test_every_json_media_type_is_accepted(media_type: str, api: Api) -> None:
    answer = api.client.post("/workflows/trigger/demo.typo", content=b"{}", headers={"Content-Type": media_type})
    assert_envelope(answer, 404)


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ('{"parms": {}}', ["body", "parms"]),
        ('{"params": []}', ["body", "params"]),
        ("[]", ["body"]),
        ('{"params": ', ["body", 11]),
    ],
    ids=["unknown field", "wrong type", "no object", "no JSON"],
)
def test_422_gives_the_place_of_each_error_in_the_body(body: str, loc: list[str | int], api: Api) -> None:
    answer = assert_envelope(api.client.post(TRIGGER, content=body, headers=JSON), 422, ".".join(map(str, loc)))
    assert [error["loc"] for error in answer["errors"]] == [loc]
    assert all(isinstance(error["msg"], str) and set(error) == {"loc", "msg"} for error in answer["errors"])


def test_422_does_not_repeat_what_was_sent(api: Api) -> None:
    response = api.client.post(TRIGGER, json={"params": "hunter2"})
    assert_envelope(response, 422)
    assert "hunter2" not in response.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "101"),
        ("limit", "many"),
        ("offset", "-1"),
        ("offset", "99999999999"),
        ("status", "SLEEPING"),
        ("trigger", "MAGIC"),
        ("since", "yesterday"),
        ("since", "0001-01-01T00:00:00+14:00"),
        ("until", "9999-12-31T23:59:59-14:00"),
    ],
)
def test_422_names_the_query_parameter(name: str, value: str, api: Api) -> None:
    body = assert_envelope(api.client.get(RUNS, params={name: value}), 422, f"query.{name}")
    assert [error["loc"] for error in body["errors"]] == [["query", name]]


@pytest.mark.parametrize(("limit", "offset"), [(1, 0), (100, 0), (20, 10_000)])
def test_the_bounds_of_a_page_are_inclusive(limit: int, offset: int, api: Api) -> None:
    assert api.get(RUNS, limit=limit, offset=offset)["pagination"]["limit"] == limit


@pytest.mark.parametrize("depth", [400, 5_000])
def test_400_for_parameters_that_are_nested_too_deeply(depth: int, api: Api) -> None:
    nested = '{"a":' * depth + "1" + "}" * depth
    body = f'{{"params": {{"day": "2025-12-12", "tier": "A", "options": {nested}}}}}'
    assert_envelope(api.client.post(TRIGGER, content=body, headers=JSON), 400)


def test_nothing_that_can_be_started_makes_the_list_of_runs_unreadable(api: Api, stack: PrefectStack) -> None:
    depth = 200
    nested = '{"a":' * depth + "1" + "}" * depth
    body = f'{{"params": {{"day": "2025-12-12", "tier": "A", "options": {nested}}}}}'
    answer = api.client.post(TRIGGER, content=body, headers=JSON)
    listed = api.client.get(RUNS)
    if answer.status_code == 201:
        # No test after this one is to suffer from it.
        forget(stack, answer.json()["run_id"])
    assert listed.status_code == 200


@pytest.mark.parametrize("path", ["/nowhere", "/api/v1/nowhere", "/api/v1/workflows", "/api/v2/workflows/runs"])
def test_404_for_an_unknown_path(path: str, api: Api) -> None:
    assert_envelope(api.client.get(f"{api.url}{path}"), 404, "path")


@pytest.mark.parametrize(("method", "allowed"), [("PUT", "POST"), ("GET", "POST"), ("DELETE", "POST")])
def test_405_for_a_method_that_the_path_does_not_support(method: str, allowed: str, api: Api) -> None:
    response = api.client.request(method, TRIGGER)
    assert_envelope(response, 405, "method")
    assert response.headers["Allow"] == allowed


def test_503_with_the_time_to_wait_when_prefect_is_down(
    stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/api"
    with api_here(nowhere, stack.home, tmp_path_factory.mktemp("no-prefect")) as api:
        for response in (api.client.get(RUNS), api.client.post(TRIGGER), api.client.get(f"{RUNS}/{NEVER_A_RUN}")):
            assert_envelope(response, 503, "out of reach")
            assert int(response.headers["Retry-After"]) > 0
        assert WEB.get(f"{api.url}/health/live").status_code == 200


@pytest.mark.parametrize("spelling", ["completed", "Completed", "COMPLETED"])
def test_enumerations_are_accepted_in_any_case(spelling: str, api: Api, finished: str) -> None:
    rows = api.get(RUNS, status=spelling, workflow_name="demo.errors")["data"]
    assert [(row["run_id"], row["status"]) for row in rows] == [(finished, "COMPLETED")]


@pytest.mark.slow
def test_a_naive_time_in_a_query_is_utc_wherever_the_server_runs(
    stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = f"demo.clock-{uuid4().hex[:8]}"
    run = stack.make_run(stack.flow_id(name), "PENDING")
    stack.post(f"/flow_runs/{run}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    with api_process(stack.url, stack.home, tmp_path_factory.mktemp("tokyo"), None, TZ="Asia/Tokyo") as api:

        def found(**times: str) -> bool:
            return bool(api.get(RUNS, workflow_name=name, **times)["data"])

        started = datetime.fromisoformat(api.run(run)["started_at"])
        assert started.utcoffset() == timedelta(0)
        just_before, just_after = started - timedelta(seconds=1), started + timedelta(seconds=1)
        naive_before, naive_after = (time.replace(tzinfo=None).isoformat() for time in (just_before, just_after))
        assert found(since=naive_before, until=naive_after)
        assert not found(since=naive_after)
        assert not found(until=naive_before)
        elsewhere = timezone(timedelta(hours=-7))
        assert found(since=just_before.astimezone(elsewhere).isoformat())
        assert not found(since=just_after.astimezone(elsewhere).isoformat())
        forget(stack, run)


@pytest.mark.parametrize("mine", ["abc-123", "A.b_c:d", "x" * 128])
def test_a_safe_request_id_of_the_caller_is_returned(mine: str, api: Api) -> None:
    for path in (RUNS, f"{RUNS}/nonsense", "/nowhere"):
        assert api.client.get(path, headers={"X-Request-ID": mine}).headers["X-Request-ID"] == mine


@pytest.mark.parametrize("theirs", ["x" * 129, "two words", '{"a":1}', "é", "", "a\tb", "<script>"])
def test_any_other_request_id_is_replaced(theirs: str, api: Api) -> None:
    response = api.client.get(RUNS, headers=[(b"X-Request-ID", theirs.encode("latin-1"))])
    assert response.headers.get_list("X-Request-ID") == [response.headers["X-Request-ID"]]
    assert response.headers["X-Request-ID"] != theirs
    assert response.headers["X-Request-ID"].isalnum()


def test_the_log_has_one_line_for_a_request_and_never_the_key(api: Api) -> None:
    mine = uuid4().hex
    api.client.get(f"{RUNS}/nonsense", params={"api_key": ADMIN_KEY}, headers={"X-Request-ID": mine})
    WEB.get(f"{api.url}/api/v1{RUNS}", headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    WEB.get(f"{api.url}/api/v1{RUNS}", headers={"X-API-Key": "spine_a-wrong-one"})

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in api.log.read_text().splitlines() if mine in line]

    wait_until(lambda: bool(lines()), "the request in the log", 30)
    (line,) = lines()
    assert (line["event"], line["method"], line["status"]) == ("request", "GET", 404)
    assert line["path"] == f"/api/v1{RUNS}/nonsense"
    assert line["request_id"] == mine
    assert line["duration_ms"] > 0
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta(0)
    everything = api.log.read_text()
    assert ADMIN_KEY not in everything
    assert "spine_a-wrong-one" not in everything


def test_every_line_of_the_log_is_json(api: Api) -> None:
    lines = api.log.read_text().splitlines()
    assert lines
    for line in lines:
        assert {"event", "level", "timestamp"} <= set(json.loads(line)), line
