"""`GET /definitions`: the workflows that can be triggered, and their parameters."""

from tests.support.stack import Api, PrefectStack


def test_a_definition_has_docstring_domain_tags_and_parameters(api: Api) -> None:
    definition = api.get("/workflows/definitions/demo.typed")
    assert definition["name"] == "demo.typed"
    assert definition["domain"] == "demo.types"
    assert definition["description"] == "Parameters of several types."
    assert definition["tags"] == ["domain:demo.types"]
    assert definition["parameters"] == [
        {"name": "day", "type": "string", "required": True, "format": "date"},
        {"name": "tier", "type": "string", "required": True, "enum": ["A", "B"]},
        {"name": "count", "type": "integer", "required": False, "default": 1},
        {"name": "options", "type": "object|null", "required": False, "default": None},
    ]


def test_definitions_are_listed_by_name_in_pages_and_by_domain(api: Api) -> None:
    everything = api.get("/workflows/definitions", limit=100)["data"]
    names = [definition["name"] for definition in everything]
    assert names == sorted(names)
    assert {"demo.typed", "demo.three_steps", "finra.weekly_refresh"} <= set(names)
    assert "demo.child" not in names
    # Of one domain, as other tests deploy workflows meanwhile.
    names = [definition["name"] for definition in everything if definition["domain"] == "demo.steps"]
    assert len(names) > 6
    walked: list[str] = []
    while True:
        page = api.get("/workflows/definitions", domain="demo.steps", offset=len(walked), limit=3)
        walked += [definition["name"] for definition in page["data"]]
        if not page["pagination"]["has_more"]:
            break
    assert walked == names
    of_types = api.get("/workflows/definitions", domain="demo.types")
    assert [definition["name"] for definition in of_types["data"]] == ["demo.typed"]
    assert of_types["pagination"]["total"] == 1


def test_the_step_count_is_that_of_the_newest_completed_run(api: Api, stack: PrefectStack, tmp_path: object) -> None:
    assert api.get("/workflows/definitions/demo.sleeping_child")["step_count"] == 0
    run_id = api.trigger("demo.fails_once_inside", marks=f"{tmp_path}/marks")
    api.wait_for(run_id, "COMPLETED")
    assert api.get("/workflows/definitions/demo.fails_once_inside")["step_count"] == 1


def test_an_unknown_definition_is_404_with_similar_names(api: Api) -> None:
    response = api.client.get("/workflows/definitions/demo.typd")
    assert response.status_code == 404
    assert "'demo.typed'" in response.json()["detail"]
