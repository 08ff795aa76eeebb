"""Each query of the dashboard and of the rules works on the metrics that a real API serves."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.monitoring.support import (
    MONITORING,
    RULES,
    dashboard_queries,
    grouping_labels_of,
    metrics_of,
    prometheus,
    queries,
    rules,
    selectors_of,
)
from tests.support.stack import Api

# Prometheus itself adds them.
OF_PROMETHEUS = {"job", "instance"}
needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="no prometheus on this machine")
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool on this machine")


def test_each_query_uses_only_metrics_and_labels_that_exist(busy: Api) -> None:
    found = metrics_of(busy)
    assert len(queries()) > 30
    for query in queries():
        selectors = [one for one in selectors_of(query) if one[0] != "up"]
        assert selectors or "up{" in query, query
        labels = set(OF_PROMETHEUS)
        for name, matchers in selectors:
            assert name in found, f"{query}: no metric is called {name}"
            labels |= set(found[name])
            for label, operator, value in matchers:
                assert label in found[name], f"{query}: {name} has no label {label}"
                known = operator != "=" or value in {*found[name][label], "FAILED", "unavailable", "in_use"}
                assert known, f"{query}: {label} is never {value}"
        assert grouping_labels_of(query) <= labels, query


def test_each_metric_is_on_the_dashboard(busy: Api) -> None:
    shown = {name for query in dashboard_queries() for name, _ in selectors_of(query)}
    ours = {name for name in metrics_of(busy) if not name.endswith(("_created", "_sum", "_count"))}
    assert ours - shown == set()


def test_each_rule_has_a_severity_and_says_what_is_wrong() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}, rule["alert"]
        assert rule["annotations"]["summary"].endswith("."), rule["alert"]


@pytest.mark.slow
@needs_prometheus
def test_a_real_prometheus_finds_series_for_each_panel_and_raises_no_alert(busy: Api, tmp_path: Path) -> None:
    with prometheus(busy, tmp_path) as server:
        empty = [query for query in queries() if query not in _of_rules() and not server.query(query)]
        # Nothing has been read from the cache of this API.
        assert empty == []
        # It has a record that was set aside, and follows nothing.
        expected = {"SpineRecordsSetAside", "SpineNobodyFollows"}
        assert {rule["alert"] for rule in rules() if server.query(rule["expr"])} == expected


def _of_rules() -> set[str]:
    return {rule["expr"] for rule in rules()}


@needs_promtool
def test_each_rule_fires_on_what_it_is_about(tmp_path: Path) -> None:
    cases = yaml.safe_load((Path(__file__).parent / "rules_test.yaml").read_text())
    tested = {alert["alertname"] for test in cases["tests"] for alert in test["alert_rule_test"]}
    assert tested == {rule["alert"] for rule in rules()}
    cases["rule_files"] = [str(RULES)]
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(cases))
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_files(tmp_path: Path) -> None:
    for kind, name in (("config", "prometheus.yaml"), ("rules", "rules.yaml")):
        done = subprocess.run(
            ["promtool", "check", kind, str(MONITORING / name)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
