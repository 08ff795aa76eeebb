"""The queries of the dashboard and of the rules, and metrics as an API serves them."""

import json
import re
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import PROJECT, free_port, wait_until
from tests.support.stack import Api
from tests.support.web import WEB

MONITORING = PROJECT / "deployments" / "monitoring"
RULES = MONITORING / "rules.yaml"
# What Grafana puts in its place.
INTERVAL = "$__rate_interval"
_SELECTOR = re.compile(r"\b(spine_\w+|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without|ignoring|on)\s*\(([^)]*)\)")

# The labels of each metric, with their values.
Labels = dict[str, dict[str, set[str]]]


def dashboard_queries() -> list[str]:
    """The query of each panel."""
    panels = json.loads((MONITORING / "grafana-dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def rules() -> list[dict[str, Any]]:
    """The rules that raise alerts."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    """All queries, as Prometheus takes them."""
    every = [*dashboard_queries(), *(rule["expr"] for rule in rules())]
    return list(dict.fromkeys(query.replace(INTERVAL, "1m") for query in every))


def selectors_of(query: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Each metric of a query with its matchers: label, operator, value."""
    return [(name, _MATCHER.findall(matchers)) for name, matchers in _SELECTOR.findall(query)]


def grouping_labels_of(query: str) -> set[str]:
    """The labels by which a query groups or matches."""
    return {label.strip() for group in _GROUPING.findall(query) for label in group.split(",")}


def metrics_of(api: Api) -> Labels:
    """What an API shows: each series name with the values of each of its labels."""
    found: Labels = defaultdict(lambda: defaultdict(set))
    for family in text_string_to_metric_families(WEB.get(f"{api.url}/metrics").text):
        for sample in family.samples:
            found[sample.name]["__name__"].add(sample.name)
            for label, value in sample.labels.items():
                found[sample.name][label].add(value)
    return found


def value_of(api: Api, name: str, **labels: str) -> float:
    """The value of one series; 0 if there is none yet."""
    for family in text_string_to_metric_families(WEB.get(f"{api.url}/metrics").text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return 0.0


@dataclass(frozen=True)
class Prometheus:
    """A real Prometheus that scrapes an API every few seconds."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that a query finds now."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10).json()
        assert answer["status"] == "success", (expression, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


@contextmanager
def prometheus(api: Api, folder: Path) -> Iterator[Prometheus]:
    """Prometheus with the committed configuration, but for the target and the interval."""
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "4s", "scrape_timeout": "4s", "evaluation_interval": "4s"}
    config["rule_files"] = [str(RULES)]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [api.url.removeprefix("http://")]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    url = f"127.0.0.1:{free_port()}"
    command = [str(shutil.which("prometheus")), f"--web.listen-address={url}"]
    places = [f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (
        (folder / "prometheus.log").open("wb") as log,
        subprocess.Popen([*command, *places], stdout=log, stderr=log) as process,
    ):
        made = Prometheus(f"http://{url}")
        try:
            wait_until(lambda: _has_scraped(made), "Prometheus to have three scrapes", 90, every=0.5)
            yield made
        finally:
            process.terminate()


def _has_scraped(made: Prometheus) -> bool:
    try:
        found = made.query("count_over_time(spine_schema_version[1m])")
    except httpx.TransportError:
        time.sleep(0.1)
        return False
    return bool(found) and int(found[0]["value"][1]) >= 3
