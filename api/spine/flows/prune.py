"""`spine.prune`: delete what is older than the retention time, in every table that grows."""

from datetime import timedelta

from prefect import flow, get_run_logger

from spine.actors import Actor, ActorKind
from spine.alerts.pruning import prune_alerts
from spine.audit.pruning import prune_audit
from spine.audit.trail import acting_as
from spine.database import make_engine, make_sessions
from spine.own_settings import own_settings
from spine.run_history.pruning import prune_outcomes
from spine.sources.pruning import prune_fetches
from spine.tables.base import utc_now
from spine.workflows.pruning import prune_requests


@flow(name="spine.prune")
async def prune(retention_days: int | None = None, dry_run: bool = True) -> dict[str, int | bool]:
    """Delete what is older than `retention_days` (by default `SPINE_ALERT_RETENTION_DAYS`).

    That are alerts with their deliveries, fetches with the record of which runs used them, outcomes of runs, claims of
    retries, and answers to repeated requests; entries of the audit trail are deleted when they are older than
    `SPINE_AUDIT_RETENTION_DAYS`. A dry run only counts them. The worker needs Spine's database settings.

    Returns:
        ``{"alerts": int, "deliveries": int, "fetches": int, "outcomes": int, "requests": int, "audit_entries": int,
        "dry_run": bool, "rows_processed": int}``.
    """
    if retention_days is not None and retention_days < 1:
        raise ValueError("retention_days must be at least 1")
    settings = own_settings()
    before = utc_now() - timedelta(days=retention_days or settings.alert_retention_days)
    engine = make_engine(settings.sqlalchemy_url)
    audited_before = utc_now() - timedelta(days=settings.audit_retention_days)
    try:
        sessions = make_sessions(engine)
        with acting_as(Actor("spine.prune", ActorKind.SYSTEM)):
            found = await prune_alerts(sessions, before, dry_run=dry_run)
            others = {
                "fetches": await prune_fetches(sessions, before, dry_run=dry_run),
                "outcomes": await prune_outcomes(sessions, before, dry_run=dry_run),
                "requests": await prune_requests(sessions, before, dry_run=dry_run),
                "audit_entries": await prune_audit(sessions, audited_before, dry_run=dry_run),
            }
    finally:
        await engine.dispose()
    verb = "Would delete" if dry_run else "Deleted"
    logger = get_run_logger()
    sentence = "%s %d alerts created before %s and their %d deliveries."
    logger.info(sentence, verb, found.alerts, before, found.deliveries)
    logger.info(
        "%s %d fetches, %d outcomes of runs, %d records of requests; %d entries of the audit trail.",
        verb,
        *others.values(),
    )
    return {
        "alerts": found.alerts,
        "deliveries": found.deliveries,
        **others,
        "dry_run": dry_run,
        "rows_processed": 0 if dry_run else found.alerts + sum(others.values()),
    }
