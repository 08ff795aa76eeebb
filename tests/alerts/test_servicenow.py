"""ServiceNow through its Table API: one incident, however many attempts there are."""

from base64 import b64encode

import pytest

from tests.alerts.support import Alerts
from tests.support.receivers import Handler, Receiver, drop


@pytest.fixture
def alerts(either_alerts: Alerts) -> Alerts:
    return either_alerts


class Table:
    """A Table API with the incidents that were created."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.loses_answers = 0

    def __call__(self, handler: Handler) -> None:
        """Answer as the Table API does."""
        request = handler.receiver.requests[-1]
        if request.headers["Authorization"] != "Basic " + b64encode(b"spine:sn0w-s3cret").decode():
            handler.answer(401, b'{"error": {"message": "User Not Authenticated"}}')
        elif request.method == "GET":
            known = any(f"correlation_id%3D{one}" in request.path for one in self.made)
            handler.answer(200, b'{"result": [{"sys_id": "1"}]}' if known else b'{"result": []}')
        else:
            self.made.append(request.json["correlation_id"])
            if self.loses_answers:
                self.loses_answers -= 1
                drop(handler)
            else:
                handler.answer(201, b'{"result": {"sys_id": "1"}}')


def test_an_incident_is_created_once_even_if_the_response_is_lost(
    alerts: Alerts, desk: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = alerts.api.settings.home / "secrets" / "servicenow"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("sn0w-s3cret\n")
    config = {
        "instance": f"http://127.0.0.1:{desk.port}",
        "username": "spine",
        "password_ref": f"file:{secret}",
        "assignment_group": "market data",
    }
    alerts.channel(channel_type="servicenow", config=config)
    table = Table()
    table.loses_answers = 1
    desk.always = table
    delivery = alerts.delivery(alerts.alert(severity="CRITICAL"))
    assert (delivery["status"], delivery["attempt"]) == ("SENT", 2)
    assert table.made == [delivery["id"]]
    (incident,) = (request.json for request in desk.posts)
    assert incident["short_description"] == "[CRITICAL] Rows are missing"
    assert (incident["assignment_group"], incident["urgency"]) == ("market data", "1")
    # The password is looked up at each use.
    secret.write_text("another-s3cret")
    refused = alerts.delivery(alerts.alert())
    assert (refused["status"], refused["attempt"]) == ("FAILED", 1)
    assert refused["error"].startswith("HTTP 401")
