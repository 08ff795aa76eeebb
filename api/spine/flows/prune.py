"""`spine.prune`: delete alerts that are older than the retention time."""

from datetime import timedelta

from prefect import flow, get_run_logger

from spine.alerts.pruning import prune_alerts
from spine.database import make_engine, make_sessions
from spine.own_settings import own_settings
from spine.tables.base import utc_now


@flow(name="spine.prune")
async def prune(retention_days: int | None = None, dry_run: bool = True) -> dict[str, int | bool]:
    """Delete alerts older than `retention_days` (by default `SPINE_ALERT_RETENTION_DAYS`) with their deliveries.

    A dry run only counts them. The worker needs Spine's database settings.

    Returns:
        ``{"alerts": int, "deliveries": int, "dry_run": bool, "rows_processed": int}``.
    """
    if retention_days is not None and retention_days < 1:
        raise ValueError("retention_days must be at least 1")
    settings = own_settings()
    before = utc_now() - timedelta(days=retention_days or settings.alert_retention_days)
    engine = make_engine(settings.sqlalchemy_url)
    try:
        found = await prune_alerts(make_sessions(engine), before, dry_run=dry_run)
    finally:
        await engine.dispose()
    verb = "Would delete" if dry_run else "Deleted"
    sentence = "%s %d alerts created before %s and their %d deliveries."
    get_run_logger().info(sentence, verb, found.alerts, before, found.deliveries)
    return {
        "alerts": found.alerts,
        "deliveries": found.deliveries,
        "dry_run": dry_run,
        "rows_processed": 0 if dry_run else found.alerts,
    }
