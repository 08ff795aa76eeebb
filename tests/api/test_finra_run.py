"""The bundled workflow over the API, on whole weekly files and on the sample that ships with the project."""

from dataclasses import astuple
from pathlib import Path

import polars as pl
import pytest

from tests.support.processes import PROJECT
from tests.support.stack import Api, PrefectStack
from tests.support.variants import one_by_default
from tests.support.weekly_files import WEEKLY_FILES

SAMPLE = "flows/finra/sample/finra_otc_weekly_sample.csv"
WORKFLOW = "finra.weekly_refresh"
SAMPLE_WEEK = "2026-01-05"
WEEKLY = {weekly.week: weekly for weekly in WEEKLY_FILES}


@pytest.fixture(scope="module")
def folder(stack: PrefectStack) -> Path:
    """A folder whose files the worker's flows may read."""
    made = Path(stack.environment["SPINE_FILE_ROOTS"]) / "weekly-runs"
    made.mkdir(parents=True, exist_ok=True)
    return made


@pytest.mark.parametrize("week", [SAMPLE_WEEK, *one_by_default(WEEKLY)])
def test_a_weekly_file_is_published_with_the_right_figures(
    api: Api, stack: PrefectStack, folder: Path, week: str
) -> None:
    path = str(WEEKLY[week].write(folder)) if week in WEEKLY else SAMPLE
    detail = api.wait_for(api.trigger(WORKFLOW, week_ending=week, tier="OTC", path=path))
    assert (detail["status"], detail["domain"]) == ("COMPLETED", "finra.otc_transparency"), detail["error"]
    assert [step["step_name"] for step in detail["steps"]] == ["extract", "validate", "compute", "publish"]
    warehouse = Path(stack.environment["SPINE_WAREHOUSE_URL"])
    partition = warehouse / "finra.otc_transparency" / "tier=OTC" / f"week_ending={week}"
    totals = pl.read_parquet(next(partition.glob("*/symbol_totals.parquet")))
    shares = pl.read_parquet(next(partition.glob("*/venue_shares.parquet")))
    found = (
        detail["rows_processed"],
        totals.height,
        shares["mpid"].n_unique(),
        totals["shares"].sum(),
        totals["trades"].sum(),
    )
    assert found == (astuple(WEEKLY[week].figures)[:5] if week in WEEKLY else (16, 8, 4, found[3], found[4]))
    sums = shares.group_by("symbol").agg(pl.col("share_of_volume").sum())["share_of_volume"]
    assert sums.is_between(1 - 1e-9, 1 + 1e-9).all()
    assert detail["capture_id"].startswith(f"otc-{week}-")
    assert partition.joinpath("_current.json").read_text().count(detail["capture_id"]) >= 1


@pytest.mark.slow
def test_a_run_shows_a_table_and_a_link_in_prefects_ui(api: Api, stack: PrefectStack) -> None:
    run_id = api.trigger(WORKFLOW, week_ending=SAMPLE_WEEK, tier="OTC", path=SAMPLE)
    api.wait_for(run_id, "COMPLETED")
    of_run = {"artifacts": {"flow_run_id": {"any_": [run_id]}}}
    artifacts = stack.post("/artifacts/filter", of_run)
    assert {"table", "markdown"} <= {artifact["type"] for artifact in artifacts}
    assert all(artifact["key"].startswith("finra-weekly-otc") for artifact in artifacts if artifact["key"])


def test_a_path_outside_of_the_roots_fails_the_run_and_shows_nothing_of_the_file(
    api: Api, stack: PrefectStack, tmp_path: Path
) -> None:
    (outside := tmp_path / "private").write_text("s3cret-line|x")
    key = Path(stack.environment["SPINE_HOME"]) / "secret-key"
    for path in (outside, key):
        run_id = api.trigger(WORKFLOW, week_ending="2026-01-05", tier="OTC", path=str(path))
        detail = api.wait_for(run_id, "FAILED")
        assert (detail["steps"][0]["error_category"], len(detail["steps"])) == ("AUTH", 1)
        assert "SPINE_FILE_ROOTS" in detail["error"]
        assert "s3cret" not in str(detail) + "".join(stack.logged(run_id))


@pytest.mark.slow
def test_a_broken_file_fails_the_validate_step_with_the_line(api: Api, folder: Path) -> None:
    lines = (PROJECT / SAMPLE).read_text().splitlines()
    lines[7] = lines[7].rpartition("|")[0]
    broken = folder / "broken.csv"
    broken.write_text("\n".join(lines) + "\n")
    run_id = api.trigger(WORKFLOW, week_ending="2026-01-05", tier="OTC", path=str(broken))
    detail = api.wait_for(run_id, "FAILED")
    failed = next(step for step in detail["steps"] if step["status"] == "FAILED")
    assert (failed["step_name"], failed["error_category"]) == ("validate", "PARSE")
    assert "line 8" in failed["error"]
    assert "line 8" in detail["error"]


@pytest.mark.slow
def test_a_retry_from_validate_works_after_the_file_was_fixed(api: Api, folder: Path) -> None:
    good = (PROJECT / SAMPLE).read_text()
    path = folder / "fixed-later.csv"
    path.write_text(good.replace("|OTC", "|").replace("OTC|", "T1|"))
    run_id = api.trigger(WORKFLOW, week_ending="2026-01-05", tier="OTC", path=str(path))
    detail = api.wait_for(run_id, "FAILED")
    assert detail["error_category"] in ("VALIDATION", "PARSE")
    path.write_text(good)
    response = api.client.post(f"/workflows/runs/{run_id}/retry", params={"from_step": "extract"})
    assert response.status_code == 200, response.text
    assert api.wait_for(run_id, "COMPLETED")["rows_processed"] == 16
