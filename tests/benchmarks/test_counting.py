"""How the benchmarks count: requests, processor time, and answers to many clients."""

import time

from tests.benchmarks.costs import Spent, requests_in
from tests.benchmarks.runs import Burst, accepting
from tests.benchmarks.wire import request, send_all
from tests.support.receivers import Handler, receiver

ACCESS_LOG = """
INFO:     127.0.0.1:49302 - "GET /api/health HTTP/1.1" 200 OK
INFO:     127.0.0.1:49302 - "POST /api/flow_runs/0199/set_state HTTP/1.1" 201 Created
INFO:     127.0.0.1:49310 - "WebSocket /api/events/in" [accepted]
INFO:     connection open
INFO:     127.0.0.1:49302 - "POST /api/flow_runs/count HTTP/1.1" 200 OK
INFO:     127.0.0.1:49302 - "GET /api/csrf-token?client=1 HTTP/1.1" 422 Unprocessable Entity
INFO:     connection closed
"""


def test_requests_are_those_of_the_access_log_without_the_benchmark_s_own() -> None:
    assert requests_in(ACCESS_LOG) == 4


def test_the_cost_of_a_run_is_without_what_the_idle_stack_spends() -> None:
    before = Spent(100.0, 1_000, {"server": 5.0, "worker": 1.0})
    after = Spent(120.0, 1_260, {"server": 9.0, "worker": 2.0, "run": 1.6})
    idle = Spent(10.0, 30, {"server": 0.2, "worker": 0.1, "run": 0.0})
    requests, seconds = after.minus(before).per_run(idle, runs=10)
    assert requests == 20
    assert {name: round(value, 6) for name, value in seconds.items()} == {"server": 0.36, "worker": 0.08, "run": 0.16}


def test_every_request_of_many_clients_is_answered_once() -> None:
    with receiver() as desk:
        requests = (request("POST", f"/{number}", "a-key", {"number": number}) for number in range(60))
        answers = send_all(desk.url, requests, clients=7)
        assert sorted(one.json["number"] for one in desk.requests) == list(range(60))
        assert {one.headers["X-API-Key"] for one in desk.requests} == {"a-key"}
    assert [answer.status for answer in answers] == [200] * 60


def test_an_answer_has_its_own_time_and_status() -> None:
    def late_refusal(handler: Handler) -> None:
        time.sleep(0.3)
        handler.answer(503, b"no")

    with receiver() as desk:
        desk.behaviours = [late_refusal]
        answers = send_all(desk.url, [request("GET", "/", None)] * 5, clients=1)
    assert [answer.status for answer in answers] == [503, 200, 200, 200, 200]
    assert answers[0].seconds >= 0.3


def test_triggers_that_were_refused_at_first_miss_their_aim() -> None:
    assert accepting("50 triggers", Burst(0.0, ["run"] * 50, 1.9, 0), "SQLite").is_met
    assert not accepting("50 triggers", Burst(0.0, ["run"] * 50, 1.9, 1), "SQLite").is_met
    assert not accepting("200 triggers", Burst(0.0, ["run"] * 200, 8.1, 0), "SQLite").is_met
