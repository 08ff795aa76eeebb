"""What the OpenAPI document says about null and about numbers is what the API does."""

from typing import Any

import pytest

from tests.http.support import Document, fields_of_body, filled, operations, parameters
from tests.support.stack import Api


def test_no_parameter_is_said_to_take_null(document: Document) -> None:
    for method, path, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert "null" not in str(parameter["schema"]), (method, path, parameter["name"])


def test_a_field_takes_null_exactly_where_the_document_says_so(door: Api, document: Document) -> None:
    tried = 0
    for method, path, operation in operations(document):
        for field, schemas in fields_of_body(document, operation).items():
            response = door.client.request(method, filled(path, operation), json={field: None})
            problems = [error["loc"] for error in response.json().get("errors", [])]
            assert (["body", field] in problems) == ({"type": "null"} not in schemas), (method, path, field)
            assert all(schema.get("default", ...) is not None for schema in schemas), (method, path, field)
            tried += 1
    assert tried > 40


@pytest.mark.parametrize("value", ["5", True, 5.5, [5]], ids=str)
def test_whole_numbers_and_booleans_are_not_guessed_from_other_types(value: Any, door: Api, document: Document) -> None:
    tried = 0
    for method, path, operation in operations(document):
        for field, schemas in fields_of_body(document, operation).items():
            types = {schema.get("type") for schema in schemas}
            if not types & {"integer", "boolean"} or (value is True and "boolean" in types):
                continue
            response = door.client.request(method, filled(path, operation), json={field: value})
            assert response.status_code == 422, (method, path, field, response.text)
            assert ["body", field] in [error["loc"] for error in response.json()["errors"]]
            tried += 1
    assert tried >= 5


def test_a_whole_number_may_have_a_fraction_of_zero(door: Api) -> None:
    body = {"name": "whole", "channel_type": "slack", "config": {}, "throttle_minutes": 5.0}
    refused = door.client.post("/alerts/channels", json=body)
    # Only the config is wrong.
    assert refused.status_code == 400, refused.text


def test_the_limits_of_pages_are_those_of_the_document(door: Api, document: Document) -> None:
    for method, path, operation in operations(document):
        for parameter in parameters(operation, "query"):
            schema = parameter["schema"]
            for value in (schema.get("minimum", 0) - 1, schema.get("maximum", 0) + 1):
                if schema.get("type") == "integer":
                    response = door.client.request(method, filled(path, operation), params={parameter["name"]: value})
                    assert response.status_code == 422, (method, path, parameter["name"])
