"""The artifacts of a run in the Prefect UI: the league table of venues, the rejects, and a link to the tables."""

from datetime import date

from prefect.artifacts import create_link_artifact, create_table_artifact

from flows.finra.concentration import Figures
from flows.finra.dataset import Tier
from flows.finra.validation import Validation
from flows.publication import Manifest, location


def show_rejects(tier: Tier, validation: Validation) -> None:
    """Create a table of the first rejected rows, also if the run then fails because there are too many."""
    create_table_artifact(
        key=_key(tier, "rejects"),
        table=[dict(reject) for reject in validation["first_rejects"]],
        description=f"## Rejected rows\n\n{rejects_in_words(validation)}\n\nThe first of them, in order of line:",
    )


def show_venues(
    tier: Tier, week_ending: date, validation: Validation, figures: Figures, manifest: Manifest, where: str
) -> None:
    """Create the league table of venues, below the headline figures of the run."""
    table = [venue | {"share_of_volume": f"{venue['share_of_volume']:.2%}"} for venue in figures["largest_venues"]]
    create_table_artifact(
        key=_key(tier, "venues"),
        table=table,
        description=headline(tier, week_ending, validation, figures, manifest, where),
    )


def show_link(tier: Tier, week_ending: date, warehouse: str, partition: str) -> None:
    """Create a link to the published partition."""
    create_link_artifact(
        key=_key(tier, "tables"),
        link=location(warehouse, partition),
        link_text=f"Tables of {tier}, week ending {week_ending}",
        description="The published partition. `_current.json` has the name of the directory with the Parquet files.",
    )


def headline(
    tier: Tier, week_ending: date, validation: Validation, figures: Figures, manifest: Manifest, where: str
) -> str:
    """The figures of a run as Markdown; ``where`` is the partition's URL without credentials."""
    symbols, single = figures["symbols"], figures["single_venue_symbols"]
    listed = len(figures["largest_venues"])
    lines = [
        f"## FINRA OTC transparency, {tier}, week ending {week_ending}",
        "",
        "| Figure | |",
        "|---|---|",
        *(f"| {name.capitalize()} | {figures[name]:,} |" for name in ("rows", "symbols", "venues", "shares", "trades")),
        f"| Symbols with a single venue | {single:,} ({single / symbols:.1%}) |",
        f"| Last update in the file | {figures['last_update']} |",
        f"| Capture | `{manifest.capture_id}`, published {manifest.published_at:%Y-%m-%d %H:%M:%S} UTC |",
        f"| Partition | `{where}` |",
        "",
        rejects_in_words(validation),
        *(f"- line {reject['line_number']}: {reject['reason']}" for reject in validation["first_rejects"][:5]),
        "",
        f"The {listed} largest of {figures['venues']} venues:" if listed < figures["venues"] else "The venues:",
    ]
    return "\n".join(lines)


def rejects_in_words(validation: Validation) -> str:
    """One sentence: how many rows were rejected, and by which rules."""
    rejected, read = validation["rows_rejected"], validation["rows_read"]
    if not rejected:
        return f"None of the {read:,} rows was rejected."
    by_rule = ", ".join(f"{rule} {count:,}" for rule, count in validation["rejects_by_rule"].items())
    return f"{rejected:,} of {read:,} rows were rejected: {by_rule}."


def _key(tier: Tier, what: str) -> str:
    # The key is the same for every week, so the UI shows the weeks of a tier as the artifact's history.
    return f"finra-weekly-{tier.lower()}-{what}"
