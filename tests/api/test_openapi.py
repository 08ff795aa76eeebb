"""The OpenAPI document, from which typed clients are generated, and answers that match it."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.api.contract import ANSWERS, MODELS
from tests.support.stack import Api, PrefectStack
from tests.support.web import WEB

Operations = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def document(api: Api) -> dict[str, Any]:
    """The document as the running API serves it."""
    response = WEB.get(f"{api.url}/openapi.json")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> Operations:
    return {(method, path): one for path, methods in document["paths"].items() for method, one in methods.items()}


@pytest.fixture(scope="module")
def guarded(operations: Operations) -> Operations:
    """The operations below `/api/v1`."""
    found = {key: one for key, one in operations.items() if key[1].startswith("/api/v1/")}
    assert len(found) >= len(ANSWERS)
    return found


def test_it_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()
    assert document["info"]["title"] == "Spine"
    assert document["info"]["version"]


def test_every_operation_has_a_name_of_its_own_a_tag_and_a_description(operations: Operations) -> None:
    names = [operation["operationId"] for operation in operations.values()]
    assert len(set(names)) == len(names)
    for key, operation in operations.items():
        assert operation["operationId"].isidentifier(), key
        assert operation["tags"], key
        assert operation["description"], key


def test_every_operation_below_api_v1_takes_either_credential(document: dict[str, Any], guarded: Operations) -> None:
    schemes = document["components"]["securitySchemes"]
    kinds = {name: (one["type"], one.get("in"), one.get("name"), one.get("scheme")) for name, one in schemes.items()}
    assert sorted(kinds.values(), key=str) == [
        ("apiKey", "header", "X-API-Key", None),
        ("http", None, None, "bearer"),
    ]
    for key, operation in guarded.items():
        assert sorted(name for one in operation["security"] for name in one) == sorted(kinds), key
        # Each alone is enough.
        assert [len(one) for one in operation["security"]] == [1, 1], key


def test_every_operation_below_api_v1_documents_its_errors_with_the_envelope(guarded: Operations) -> None:
    for key, operation in guarded.items():
        responses = operation["responses"]
        assert {"401", "403", "503"} <= set(responses), key
        assert "Retry-After" in responses["503"]["headers"], key
        for status, response in responses.items():
            assert "X-Request-ID" in response["headers"], (key, status)
            if status.startswith("2") or status == "304":
                continue
            content = response["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/ErrorResponse"}, (key, status)
            assert set(content["example"]) <= {"detail", "errors"}, (key, status)


def test_operations_with_a_body_or_parameters_document_their_rejections(guarded: Operations) -> None:
    for key, operation in guarded.items():
        queries = [one for one in operation.get("parameters", []) if one["in"] == "query"]
        named = [one for one in operation.get("parameters", []) if one["in"] == "path"]
        assert ("422" in operation["responses"]) or not (queries or "requestBody" in operation), key
        assert ("404" in operation["responses"]) or not named, key
        if "requestBody" in operation:
            assert {"400", "413", "415"} <= set(operation["responses"]), key


def test_the_envelope_has_a_sentence_and_the_invalid_fields(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["ErrorResponse"]["required"] == ["detail"]
    assert schemas["ErrorResponse"]["properties"]["detail"]["type"] == "string"
    assert set(schemas["FieldProblem"]["properties"]) == {"loc", "msg"}


def test_fastapis_own_error_models_are_removed(document: dict[str, Any]) -> None:
    assert "HTTPValidationError" not in str(document)
    assert "ValidationError" not in document["components"]["schemas"]


def test_each_route_answers_with_the_model_of_the_contract(operations: Operations) -> None:
    for (method, path), (status, model) in ANSWERS.items():
        responses = operations[method, f"/api/v1{path}"]["responses"]
        successes = [one for one in responses if one.startswith("2")]
        assert successes == [status], path
        schema = responses[status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{model}"}, path


def resolve(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    found: dict[str, Any] = schemas[reference.rpartition("/")[2]] if reference else schema
    return found


def describe(schema: dict[str, Any], schemas: dict[str, Any]) -> str | list[str]:
    """A field in the notation of `MODELS`."""
    parts = [resolve(part, schemas) for part in schema.get("anyOf", [schema])]
    if any("enum" in part for part in parts):
        return [value for part in parts for value in part.get("enum", [part["type"]])]
    formats = {part["type"]: part.get("format") for part in parts}
    return "|".join("date-time" if form == "date-time" else kind for kind, form in formats.items())


@pytest.mark.parametrize("model", MODELS)
def test_a_model_has_the_fields_types_and_nullability_of_the_contract(model: str, document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    properties = schemas[model]["properties"]
    wanted = MODELS[model]
    described = {name: describe(properties[name], schemas) for name in wanted if name in properties}
    assert described == wanted
    assert set(wanted) <= set(schemas[model]["required"])


def test_a_list_has_data_and_pagination(document: dict[str, Any]) -> None:
    for model in ("WorkflowRunSummary", "WorkflowDefinition", "ScheduleResponse", "ScheduleRunSummary"):
        page = document["components"]["schemas"][f"Page_{model}_"]
        assert page["required"] == ["data", "pagination"]
        assert page["properties"]["data"]["items"] == {"$ref": f"#/components/schemas/{model}"}


def test_the_list_of_runs_takes_the_filters_of_the_contract(operations: Operations) -> None:
    parameters = {one["name"]: one for one in operations["get", "/api/v1/workflows/runs"]["parameters"]}
    names = {"status", "workflow_name", "domain", "since", "until", "trigger", "offset", "limit"}
    assert names <= set(parameters)
    limit = parameters["limit"]["schema"]
    assert (limit["default"], limit["minimum"], limit["maximum"]) == (20, 1, 100)
    assert parameters["offset"]["schema"]["minimum"] == 0
    assert all(parameters[name]["required"] is False for name in names)


def test_the_body_of_a_trigger_has_an_example_and_takes_no_other_field(document: dict[str, Any]) -> None:
    body = document["components"]["schemas"]["WorkflowTriggerRequest"]
    assert body["additionalProperties"] is False
    assert body["examples"]
    for example in body["examples"]:
        assert set(example) <= set(body["properties"])
        assert "params" not in body.get("required", [])


def test_a_preview_is_a_list_of_times(operations: Operations) -> None:
    responses = operations["get", "/api/v1/schedules/preview-next"]["responses"]
    items = responses["200"]["content"]["application/json"]["schema"]["items"]
    assert items == {"$ref": "#/components/schemas/NextRunPreview"}


@pytest.mark.parametrize("path", ["/workflows/trigger/{workflow_name}", "/schedules/{schedule_id}/run-now"])
def test_requests_that_start_work_take_an_idempotency_key(operations: Operations, path: str) -> None:
    parameters = operations["post", f"/api/v1{path}"]["parameters"]
    (header,) = [one for one in parameters if one["in"] == "header"]
    assert header["name"].lower() == "idempotency-key"
    assert header["required"] is False


def test_answers_match_the_document(api: Api, stack: PrefectStack, document: dict[str, Any]) -> None:
    run = stack.make_run(stack.flow_id("demo.openapi"), "FAILED")
    answers = {
        "Page_WorkflowRunSummary_": api.get("/workflows/runs", workflow_name="demo.openapi"),
        "WorkflowRunDetail": api.get(f"/workflows/runs/{run}"),
        "Page_WorkflowDefinition_": api.get("/workflows/definitions"),
        "WorkflowDefinition": api.get("/workflows/definitions/demo.typed"),
        "ErrorResponse": api.client.get("/workflows/runs", params={"limit": 0}).json(),
    }
    for model, answer in answers.items():
        schema = {"$ref": f"#/components/schemas/{model}", "components": document["components"]}
        Draft202012Validator(schema).validate(answer)
        assert not Draft202012Validator(schema).is_valid({**answer, next(iter(answer)): {"no": "such value"}}), model
    detail = answers["WorkflowRunDetail"]
    assert set(MODELS["WorkflowRunDetail"]) <= set(detail)
    (summary,) = answers["Page_WorkflowRunSummary_"]["data"]
    assert set(MODELS["WorkflowRunSummary"]) <= set(summary)
    assert summary["schedule_id"] is None
    assert answers["Page_WorkflowRunSummary_"]["pagination"] == {
        "offset": 0,
        "limit": 20,
        "total": 1,
        "has_more": False,
    }
    # Where there is no default, the key is absent; a default of null is one.
    described = {one["name"]: one for one in answers["WorkflowDefinition"]["parameters"]}
    assert described["day"] == {"name": "day", "type": "string", "format": "date", "required": True}
    assert described["options"] == {"name": "options", "type": "object|null", "required": False, "default": None}
