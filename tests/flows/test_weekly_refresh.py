"""The flow: its steps over files, and whole runs on a Prefect server."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.logging import disable_run_logger
from spine.flows import staging

import flows.finra
from flows import publication
from flows.config import FlowSettings
from flows.finra import weekly_refresh as steps
from flows.finra.dataset import capture_id
from flows.finra.validation import TooManyRejects

SAMPLE = Path(flows.finra.__file__).parent / "sample" / "finra_otc_weekly_sample.csv"
WEEK = date(2026, 1, 5)
PARTITION = "finra.otc_transparency/tier=OTC/week_ending=2026-01-05"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SPINE_WAREHOUSE_URL", raising=False)
    monkeypatch.setenv("SPINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SPINE_FILE_ROOTS", str(tmp_path))
    return tmp_path / "home"


def artifacts() -> dict[str | None, Any]:
    with get_client(sync_client=True) as client:
        newest_last = sorted(client.read_artifacts(), key=lambda artifact: str(artifact.created))
        return {artifact.key: artifact for artifact in newest_last}


def test_a_run_publishes_the_tables_and_leaves_artifacts_and_json_results(home: Path, prefect_server: Path) -> None:
    result = steps.weekly_refresh(WEEK, "OTC", str(SAMPLE))
    assert result["rows_processed"] == 16
    assert result["rejects_by_rule"] == {}

    published = publication.read_partition(str(home / "warehouse"), PARTITION)
    assert published.manifest.capture_id == result["capture_id"]
    assert {name: frame.height for name, frame in published.tables.items()} == {
        "symbol_totals": 8,
        "venue_shares": 16,
        "venue_concentration": 8,
        "rejects": 0,
    }
    assert list((home / "staging").iterdir()) == []

    left = artifacts()
    assert "3,684,100" in left["finra-weekly-otc-venues"].description
    assert [venue["mpid"] for venue in json.loads(left["finra-weekly-otc-venues"].data)] == [
        "QBRD",
        "NLNK",
        "VDSK",
        "SKYX",
    ]
    assert f"({home.as_uri()}/warehouse/{PARTITION})" in left["finra-weekly-otc-tables"].data

    # Reading them as JSON is the proof that none is a pickle. Steps are stored in an envelope, the flow's result bare.
    stored = [json.loads(file.read_text()) for file in prefect_server.iterdir()]
    assert len(stored) == 5, "four steps and the flow"
    assert result in stored
    assert result in [json.loads(record["result"]) for record in stored if "metadata" in record]


def test_tolerated_rejects_are_published_and_too_many_fail_the_run(
    home: Path, prefect_server: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text(SAMPLE.read_text().replace("|910000|", "|-5|"))
    result = steps.weekly_refresh(WEEK, "OTC", str(bad), max_reject_fraction=0.0625)
    assert (result["rows_processed"], result["rejects_by_rule"]) == (15, {"shares_negative": 1})
    rejects = publication.read_partition(str(home / "warehouse"), PARTITION).tables["rejects"]
    assert rejects.select("line_number", "reason").rows() == [(7, "totalWeeklyShareQuantity '-5' is negative")]
    assert "line 7: totalWeeklyShareQuantity '-5' is negative" in artifacts()["finra-weekly-otc-venues"].description

    with pytest.raises(TooManyRejects, match=r"1 of 16 rows \(6\.2 %\) were rejected, more than the 6\.0 % allowed"):
        steps.weekly_refresh(WEEK, "OTC", str(bad), max_reject_fraction=0.06)
    assert json.loads(artifacts()["finra-weekly-otc-rejects"].data)[0]["line_number"] == 7


def test_validate_can_run_again_after_the_staged_files_are_gone_and_compute_says_that_it_must(tmp_path: Path) -> None:
    folder = tmp_path / "staging" / "run"
    with disable_run_logger():
        source = steps.extract.fn(str(SAMPLE))
        checked = steps.validate.fn(source, "OTC", 0.01, str(folder))
        first = steps.compute.fn(checked, str(folder))
        staging.clear(folder)
        with pytest.raises(staging.StagingLost, match=r"rows-00000\.parquet .* is missing .* from step 'validate'"):
            steps.compute.fn(checked, str(folder))
        checked = steps.validate.fn(source, "OTC", 0.01, str(folder))
        assert steps.compute.fn(checked, str(folder)) == first


def test_extract_makes_a_relative_path_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SAMPLE.parent)
    with disable_run_logger():
        assert steps.extract.fn(SAMPLE.name)["path"] == str(SAMPLE)


def test_the_warehouse_lies_below_the_home_unless_it_has_a_url(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FlowSettings().warehouse == str(home / "warehouse")
    monkeypatch.delenv("SPINE_HOME")
    assert FlowSettings().warehouse == str(Path.cwd() / ".spine" / "warehouse")
    monkeypatch.setenv("SPINE_WAREHOUSE_URL", "s3://bucket/tables")
    assert FlowSettings().warehouse == "s3://bucket/tables"


def test_a_capture_id_changes_with_everything_that_makes_the_content() -> None:
    base = capture_id("OTC", WEEK, "a" * 64)
    assert base.startswith("otc-2026-01-05-")
    assert base == capture_id("OTC", WEEK, "a" * 64)
    others = {capture_id("T1", WEEK, "a" * 64), capture_id("OTC", date(2026, 1, 12), "a" * 64)}
    assert len({base, capture_id("OTC", WEEK, "b" * 64), *others}) == 4
    assert len(base.rpartition("-")[2]) == 16


def test_files_of_failed_runs_are_removed_after_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine", "other"):
        staging.fresh(tmp_path / name)
    staging.clear(tmp_path / "mine")
    assert [folder.name for folder in tmp_path.iterdir()] == ["other"]
    monkeypatch.setattr(staging, "KEEP_SECONDS", -1)
    staging.clear(tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []
