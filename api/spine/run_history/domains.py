"""Remembers the domains of runs that have ended, to which the patterns of limited keys expand."""

from collections.abc import Iterable

from sqlalchemy import select

from spine.cache.statements import upsert
from spine.database import SessionFactory, reading, transaction
from spine.names import domains_in
from spine.prefect.client import FlowRun
from spine.tables.domains import LONGEST_DOMAIN, SeenDomain
from spine.text import storable


async def record_domains(sessions: SessionFactory, runs: Iterable[FlowRun]) -> None:
    """Store the domains of these runs that are new. Raises `DatabaseUnavailable`."""
    names = {name for run in runs for name in domains_in(run.tags)}
    names = {name for name in names if len(name) <= LONGEST_DOMAIN and name == storable(name)}
    if not names:
        return
    async with reading(sessions) as session:
        new = names - set(await session.scalars(select(SeenDomain.name).where(SeenDomain.name.in_(names))))
    if new:
        async with transaction(sessions) as session:
            inserting = upsert(session, SeenDomain).values([{"name": name} for name in sorted(new)])
            await session.execute(inserting.on_conflict_do_nothing())
