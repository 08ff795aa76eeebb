"""What is refused leaves no entry in the audit trail; `tests/api/test_nothing_else_changes.py` has what is changed."""

from tests.administration.support import as_one_request, entries
from tests.http.support import filled, operations
from tests.support.stack import ADMIN_KEY, Api
from tests.support.web import WEB


def test_what_is_refused_leaves_no_entry(api: Api) -> None:
    sender, request_id = as_one_request(api)
    document = WEB.get(f"{api.url}/openapi.json").json()
    refused = 0
    for method, path, operation in operations(document):
        if method == "GET" or operation["operationId"] == "clear_cache":
            continue
        for body in ({"not": "a field"}, {}) if "requestBody" in operation else (None,):
            answer = sender.client.request(method, filled(path, operation), json=body)
            assert 400 <= answer.status_code < 500, (method, path, answer.text)
            refused += 1
    for client in (api.as_key("spine_wrong"), api.as_key(ADMIN_KEY)):
        client.headers["X-Request-ID"] = request_id
        assert client.delete("/alerts/channels/nobody").status_code in (401, 404)
    assert refused > 20
    assert entries(api, request_id=request_id) == []
