"""The flow ``finra.weekly_refresh``: reads one weekly file and publishes tables of venue concentration."""

from datetime import date
from pathlib import Path
from typing import Annotated, TypedDict

from prefect import flow, get_run_logger, runtime, task
from pydantic import Field
from spine import read_source
from spine.flows import staging
from spine.flows.files import allowed_file

from flows import publication
from flows.config import FlowSettings
from flows.finra import artifacts, concentration, dataset, validation, weekly_file
from flows.finra.concentration import Figures
from flows.finra.dataset import Tier
from flows.finra.validation import Validation
from flows.finra.weekly_file import SourceFile

# The sample that comes with the flow can be read without any setting.
SAMPLES = Path(__file__).parent / "sample"


class Computed(TypedDict):
    """The result of `compute`: the staged files by table name, and the figures to show."""

    files: dict[str, str]
    figures: Figures


class Published(TypedDict):
    """The result of a run. ``rows_processed`` counts accepted rows; ``partition`` is a path in the warehouse."""

    rows_processed: int
    rows_rejected: int
    rejects_by_rule: dict[str, int]
    capture_id: str
    partition: str


@task(name="extract", persist_result=True, result_serializer="json")
def extract(path: str | None, source: str | None = None) -> SourceFile:
    """Find the file, or get the current content of a registered source, and hash it."""
    place = read_source(source).path if source is not None else allowed_file(path or "", also=SAMPLES)
    file = weekly_file.locate(str(place))
    get_run_logger().info("Found %s: %s bytes.", file["path"], f"{file['size_bytes']:,}")
    return file


@task(name="validate", persist_result=True, result_serializer="json")
def validate(source: SourceFile, tier: Tier, max_reject_fraction: float, folder: str) -> Validation:
    """Check structure and rows, stage the accepted rows and the rejects; fail if there are too many rejects."""
    weekly_file.check_unchanged(source)
    checked = validation.validate_file(Path(source["path"]), tier, Path(folder) / "validate")
    get_run_logger().info(artifacts.rejects_in_words(checked))
    if checked["rows_rejected"]:
        artifacts.show_rejects(tier, checked)
    validation.check_reject_fraction(checked, max_reject_fraction)
    validation.write_rejects(Path(source["path"]), Path(folder) / "validate")
    return checked


@task(name="compute", persist_result=True, result_serializer="json")
def compute(checked: Validation, folder: str) -> Computed:
    """Compute the three tables from the accepted rows."""
    rows = [Path(file) for file in checked["rows"]]
    staging.require(rows, retry_from="validate")
    files = concentration.write_tables(rows, staging.fresh(Path(folder) / "compute"))
    return Computed(files={table: str(file) for table, file in files.items()}, figures=concentration.figures(files))


@task(name="publish", persist_result=True, result_serializer="json")
def publish(
    source: SourceFile, checked: Validation, computed: Computed, tier: Tier, week_ending: date, folder: str
) -> Published:
    """Publish the tables to the warehouse, create the artifacts in the Prefect UI, and remove the staged files."""
    warehouse = FlowSettings().warehouse
    partition = dataset.partition(tier, week_ending)
    capture_id = dataset.capture_id(tier, week_ending, source["sha256"])
    files = {table: Path(file) for table, file in computed["files"].items()} | {"rejects": Path(checked["rejects"])}
    if publication.already_published(warehouse, partition, capture_id) is None:
        staging.require(files.values(), retry_from="validate")
    details = {"source_sha256": source["sha256"], "rejects_by_rule": checked["rejects_by_rule"]}
    manifest = publication.publish(warehouse, partition, capture_id, files, details=details)
    if computed["figures"]["last_update"] < week_ending.isoformat():
        get_run_logger().warning(
            "The file was last updated on %s, before its week ended on %s; check that it is the right week's file.",
            computed["figures"]["last_update"],
            week_ending,
        )
    where = publication.location(warehouse, partition)
    get_run_logger().info("Capture %s is current in %s.", manifest.capture_id, where)
    artifacts.show_venues(tier, week_ending, checked, computed["figures"], manifest, where)
    artifacts.show_link(tier, week_ending, warehouse, partition)
    staging.clear(Path(folder))
    return Published(
        rows_processed=checked["rows_accepted"],
        rows_rejected=checked["rows_rejected"],
        rejects_by_rule=checked["rejects_by_rule"],
        capture_id=manifest.capture_id,
        partition=partition,
    )


@flow(name="finra.weekly_refresh", persist_result=True, result_serializer="json")
def weekly_refresh(
    week_ending: date,
    tier: Tier,
    path: str | None = None,
    max_reject_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01,
    source: str | None = None,
) -> Published:
    """Refresh venue shares and concentration of one tier and week from FINRA's weekly OTC file.

    Args:
        week_ending: The date under which the week's tables are published.
        tier: OTC, T1 (NMS Tier 1) or T2 (NMS Tier 2); rows of another tier are rejected.
        path: The file on the machine that runs the flow, below SPINE_FILE_ROOTS; absolute, or relative to the run's
            working directory or to the only root.
        max_reject_fraction: The run fails if more than this fraction of the rows (0 to 1) is rejected.
        source: A registered source, by name or id, instead of a path; it is fetched first if it is stale.
    """
    if (path is None) == (source is None):
        raise ValueError("Give either path or source.")
    folder = str(staging.directory_of(FlowSettings().home) / str(runtime.flow_run.id))
    file = extract(path, source)
    checked = validate(file, tier, max_reject_fraction, folder)
    computed = compute(checked, folder)
    return publish(file, checked, computed, tier, week_ending, folder)
