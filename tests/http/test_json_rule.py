"""Free-form JSON: one rule for every field, which refuses what cannot be stored, and rows from before it."""

import json
from typing import Any

import pytest
from spine.alerts.outbox import AlertEvent, raise_alert
from spine.database import make_engine, make_sessions
from spine.json_rule import DEEPEST, LARGEST, presentable, problems_of
from spine.severity import Severity
from spine.tables.base import new_id, utc_now
from sqlalchemy import text

from tests.http.support import Document, fields_of_body, filled, operations
from tests.support.stack import Api

JSON = {"Content-Type": "application/json"}
ALERT = {"severity": "INFO", "title": "Rows", "message": "3 of 9", "source": "desk.load"}


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


# What each breaks, as JSON text, because Python cannot encode all of it.
ATTACKS = {
    "NUL": r'{"a": "b\u0000"}',
    "NUL in a name": r'{"a\u0000": 1}',
    "NUL in an inner name": r'{"a": [{"b\u0000": 1}]}',
    "lone surrogate": r'{"a": "\ud800"}',
    "lone surrogate in a name": r'{"\udfff": 1}',
    "NaN": '{"a": NaN}',
    "infinity": '{"a": [Infinity]}',
    "a number that is read as infinite": '{"a": -1e400}',
    "above 64 bits": f'{{"a": {2**63}}}',
    "below 64 bits": f'{{"a": {-(2**63) - 1}}}',
    "a level too deep": nested(DEEPEST + 1),
    "500 levels": nested(500),
    "lists of 500 levels": '{"a": ' + "[" * 500 + "]" * 500 + "}",
    "too large": json.dumps({"a": ["x" * 1_000] * (LARGEST // 1_000)}),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_every_free_form_field_refuses(attack: str, door: Api, document: Document) -> None:
    attacked = []
    for method, path, operation in operations(document):
        for field, schemas in fields_of_body(document, operation).items():
            if any(schema.get("additionalProperties") is True for schema in schemas):
                body = f'{{"{field}": {attack}}}'
                response = door.client.request(method, filled(path, operation), content=body, headers=JSON)
                assert response.status_code == 400, (method, path, field, response.text)
                assert response.json()["errors"][0]["loc"][:2] == ["body", field]
                assert len(response.content) < 20_000
                attacked.append(f"{method} {path} {field}")
    assert len(attacked) >= 10, attacked


def test_what_the_rule_allows_is_stored_and_read_back_on_every_database(each_door: Api) -> None:
    metadata = {
        "": "",
        "numbers": [2**63 - 1, -(2**63), 1.5e300, True, None],
        "text": "emoji \U0001f600, control \x01\x1f, U+FFFF \uffff",
        "deep": json.loads(nested(DEEPEST - 1)),
    }
    made = each_door.client.post("/alerts", json={**ALERT, "metadata": metadata})
    assert made.status_code == 201, made.text
    assert each_door.get(f"/alerts/{made.json()['id']}")["metadata"] == metadata


@pytest.mark.parametrize("depth", [1_100, 100_000])
def test_a_body_that_no_decoder_reads_is_refused(depth: int, door: Api) -> None:
    content = f'{{"metadata": {"[" * depth}{"]" * depth}}}'
    assert door.client.post("/alerts", content=content, headers=JSON).status_code == 400


def test_no_depth_between_what_the_rule_and_what_the_decoder_refuses_gets_through(door: Api) -> None:
    # Python's own limit is 1,000, and the decoder, the validator and the encoder reach it at different depths.
    for depth in range(850, 1_010, 2):
        content = f'{{"metadata": {{"a": {"[" * depth}{"]" * depth}}}}}'
        response = door.client.post("/alerts", content=content, headers=JSON)
        assert response.status_code == 400, (depth, response.text)


@pytest.mark.parametrize("digits", [20, 5_000])
def test_whole_numbers_of_any_length_are_refused(digits: int, door: Api) -> None:
    content = f'{{"metadata": {{"a": {"9" * digits}}}}}'
    assert door.client.post("/alerts", content=content, headers=JSON).status_code == 400


def test_an_answer_about_invalid_names_can_be_sent_and_is_short(door: Api) -> None:
    surrogate = door.client.post("/alerts", content=r'{"\ud800\u0000\n": 1}', headers=JSON)
    assert surrogate.status_code == 422
    assert surrogate.json()["detail"].isprintable()
    long = door.client.post("/alerts", json={f"{index}{'x' * 50_000}": 1 for index in range(20)})
    assert long.status_code == 422
    assert len(long.content) < 20_000
    many = door.client.post("/alerts", json={str(index): 1 for index in range(50_000)})
    assert many.status_code == 422
    assert len(many.content) < 40_000


POISON = r'{"surrogate": "a\ud800", "NUL": "\u0000", "na\u0000me": 1, "deep": %s, "nan": %s}'


async def poisoned_alert(api: Api, not_a_number: str) -> str:
    """Store an alert as older versions could."""
    engine = make_engine(api.settings.sqlalchemy_url)
    values = {"id": new_id(), "now": utc_now(), "metadata": POISON % (nested(500), not_a_number), **ALERT}
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO alerts (id, created_at, severity, title, message, source, metadata) "
                "VALUES (:id, :now, :severity, :title, :message, :source, :metadata)"
            ),
            values,
        )
    await engine.dispose()
    return str(values["id"])


async def test_rows_that_were_poisoned_before_can_be_read(each_door: Api) -> None:
    # PostgreSQL has always refused NaN.
    alert_id = await poisoned_alert(each_door, "1" if each_door.database_url else "NaN")
    metadata = each_door.get(f"/alerts/{alert_id}")["metadata"]
    assert metadata["surrogate"] == "a\ufffd"
    assert metadata["NUL"] == "\ufffd"
    assert metadata["na\ufffdme"] == 1
    assert metadata["nan"] == (1 if each_door.database_url else None)
    assert "levels deep" in json.dumps(metadata["deep"])
    assert each_door.client.get("/alerts").status_code == 200


def test_what_is_presentable_has_no_problems_and_can_be_encoded() -> None:
    poisoned = json.loads(POISON % (nested(500), "[NaN, -Infinity]"))
    shown = presentable(poisoned)
    assert problems_of(shown) == []
    json.dumps(shown, allow_nan=False, ensure_ascii=False).encode()
    fine = {"a": [1, 2.5, "x", None, True, {"b": []}]}
    assert presentable(fine) == fine


async def test_details_of_internal_alerts_never_poison_a_row(each_door: Api) -> None:
    engine = make_engine(each_door.settings.sqlalchemy_url)
    details: dict[str, Any] = {"error": "\ud800\x00", "rate": float("nan")}
    event = AlertEvent(Severity.INFO, "A run failed", "", "desk.load", cause=new_id(), details=details)
    stored = await raise_alert(make_sessions(engine), event)
    await engine.dispose()
    assert each_door.get(f"/alerts/{stored.id}")["metadata"] == {"error": "\ufffd\ufffd", "rate": None}
