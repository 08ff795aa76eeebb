"""Registering, reading, changing and deleting sources.

The source's row is written before its schedule is created in Prefect, so that a client can repeat a request that failed
in between.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from spine.audit.trail import changing, complete, forget, record
from spine.auth.callers import Caller
from spine.auth.domains import Domains
from spine.cache.garbage_collection import SECONDS_OF_A_REQUEST, delete_unreferenced
from spine.cache.store import BlobStore
from spine.connections.drivers.queries import check_query
from spine.connections.service import find_connection
from spine.database import SessionFactory, reading, transaction
from spine.egress.fetch_failure import FetchFailure
from spine.errors import BadRequest, Conflict, FieldError, NotFound, Unavailable
from spine.json_rule import is_same
from spine.names import check_name
from spine.schemas import ActionResponse
from spine.secrets.configs import field_errors
from spine.secrets.sealed import redact
from spine.sources.configs import SourceConfigs
from spine.sources.parsers import ParserConfig
from spine.sources.queries import find_source, summary_of
from spine.sources.schedule import FetchSchedule, SourceSchedules
from spine.sources.schemas import ParserName, SourceCreate, SourceDetail, SourceType, SourceUpdate
from spine.sources.types.base import SourceConfig, refused
from spine.sources.types.database import DatabaseConfig
from spine.tables.audit import DONE, STARTED
from spine.tables.base import new_id, utc_now
from spine.tables.cache import CacheEntry
from spine.tables.presenting import present_one, refuse_unreadable
from spine.tables.sources import Source

log = structlog.get_logger("spine.sources")


@dataclass(frozen=True)
class Registry:
    """Registers, reads, changes and deletes sources."""

    sessions: SessionFactory
    configs: SourceConfigs
    schedules: SourceSchedules
    domains: Domains

    async def create(self, caller: Caller, body: SourceCreate) -> ActionResponse:
        """Register a source.

        Raises `BadRequest` with each wrong value, `Conflict` for a name that is taken, `Forbidden` for another domain.
        """
        check_name(body.name)
        self.domains.require(body.domain, "the source")
        stored, config = self.configs.store(body.source_type.value, body.config, {})
        _check_parser(body.source_type.value, body.parser_type, body.parser_config)
        if body.cron_expression is not None:
            await self.schedules.check(body.name, body.cron_expression, is_new=True)
        async with transaction(self.sessions) as session:
            source = Source(
                id=new_id(),
                name=body.name,
                source_type=body.source_type.value,
                config=stored,
                connection_id=await self._connection_id(session, config),
                domain=body.domain,
                parser_type=body.parser_type.value if body.parser_type else None,
                parser_config=body.parser_config,
                enabled=body.enabled,
                created_by=caller.name,
            )
            session.add(source)
            await _flush(session, body.name)
            after = {**_settings_of(source), "cron_expression": body.cron_expression}
            outcome = STARTED if body.cron_expression is not None else DONE
            entry = await record(session, "created", "source", source.id, source.name, after=after, outcome=outcome)
        if body.cron_expression is not None:
            try:
                await self._set_schedule(source, body.cron_expression)
            except BaseException:
                # The request has failed, so no source may be left.
                await asyncio.shield(self._delete_row(source.id, entry))
                raise
            await complete(self.sessions, entry)
        return ActionResponse(id=source.id, status="created", message=f"The source {source.name!r} was registered.")

    async def read(self, id_or_name: str) -> SourceDetail:
        """One source. Raises `NotFound`, and `Conflict` for one that cannot be read."""
        async with reading(self.sessions) as session:
            source = await find_source(session, self.domains, id_or_name)
        refuse_unreadable(source)
        schedule = await self.schedules.read(source)
        return present_one(source, lambda: _detail(source, schedule))

    async def update(self, id_or_name: str, body: SourceUpdate) -> SourceDetail:
        """Change the fields that were sent.

        Raises `NotFound`, `BadRequest`, `Conflict` for the name, and `Forbidden` for another domain.
        """
        if "domain" in body.model_fields_set:
            self.domains.require(body.domain, "the source")
        if body.name is not None:
            check_name(body.name)
        _check_parser(None, body.parser_type, body.parser_config)
        if body.cron_expression is not None:
            await self.schedules.check(body.name or id_or_name, body.cron_expression, is_new=False)
            async with reading(self.sessions) as session:
                source = await find_source(session, self.domains, id_or_name)
            await self.schedules.refuse_unchangeable(source)
        async with transaction(self.sessions) as session:
            source = await find_source(session, self.domains, id_or_name, to_change=True)
            before = _settings_of(source)
            await self._change(session, source, body)
            await _flush(session, source.name)
            # If it cannot be shown afterwards, nothing is changed.
            present_one(source, lambda: _detail(source, FetchSchedule()))
            entry = await _record_update(session, source, before, body) if body.model_fields_set else None
        if "cron_expression" in body.model_fields_set:
            await self._set_schedule(source, body.cron_expression)
        if body.model_fields_set & {"name", "domain"}:
            await self.schedules.update_labels(source)
        if body.enabled is not None:
            await self.schedules.switch(source)
        if entry is not None:
            await complete(self.sessions, entry)
        return await self.read(source.id)

    async def delete(self, store: BlobStore, id_or_name: str) -> ActionResponse:
        """Delete a source with its schedule, fetches and cached content; safe to repeat. Raises `NotFound`."""
        async with reading(self.sessions) as session:
            source = await find_source(session, self.domains, id_or_name)
        async with changing("deleted", "source", source.id, source.name, before=_settings_of(source)):
            # First, so that no schedule is left that fetches a deleted source.
            await self.schedules.remove(source)
            await self._delete_row(source.id)
        try:
            # The cache's maintenance deletes what there is no time for.
            await delete_unreferenced(self.sessions, store, SECONDS_OF_A_REQUEST)
        except (FetchFailure, Unavailable) as reason:
            # The source is deleted. The cache's maintenance deletes its content later.
            log.warning("content_not_deleted", source=source.name, reason=str(reason))
        return ActionResponse(id=source.id, status="deleted", message=f"The source {source.name!r} was deleted.")

    async def _change(self, session: AsyncSession, source: Source, body: SourceUpdate) -> None:
        _check_parser(source.source_type, body.parser_type, None)
        sent = body.model_fields_set
        before = _settings_of(source)
        plain = sent & {"name", "domain", "parser_type", "parser_config", "enabled"}
        for name, value in body.model_dump(mode="json", include=plain).items():
            setattr(source, name, value)
        if body.config is not None and not is_same(body.config, redact(source.config)):
            source.config, config = self.configs.store(source.source_type, body.config, source.config)
            source.connection_id = await self._connection_id(session, config)
        now = _settings_of(source)
        if any(not is_same(now[name], before[name]) for name in ("config", "parser_type", "parser_config")):
            # Content that was read before, or is being read now, may differ from what the next fetch reads or counts.
            source.config_version += 1
            await session.execute(update(CacheEntry).where(CacheEntry.source_id == source.id).values(validators={}))
        if not is_same(now, before) or "cron_expression" in sent:
            source.updated_at = utc_now()

    async def _connection_id(self, session: AsyncSession, config: SourceConfig) -> str | None:
        if not isinstance(config, DatabaseConfig):
            return None
        try:
            connection = await find_connection(session, self.domains, config.connection)
        except NotFound as reason:
            raise refused("connection", reason.detail.removesuffix(".")) from None
        try:
            check_query(connection.db_type, config.query)
        except ValueError as reason:
            raise refused("query", str(reason)) from None
        return connection.id

    async def _set_schedule(self, source: Source, cron: str | None) -> None:
        schedule_id = await self.schedules.set(source, cron)
        async with transaction(self.sessions) as session:
            mine = update(Source).where(Source.id == source.id)
            await session.execute(mine.values(schedule_id=schedule_id))

    async def _delete_row(self, source_id: str, created: str | None = None) -> None:
        """Delete a source, with the audit entry `created` of a creation that has failed."""
        async with transaction(self.sessions) as session:
            source = await session.get(Source, source_id)
            if source is not None:
                await session.delete(source)
            if created is not None:
                await forget(session, created)


def _settings_of(source: Source) -> dict[str, Any]:
    names = ("name", "source_type", "domain", "enabled", "config", "parser_type", "parser_config")
    return {name: getattr(source, name) for name in names}


async def _record_update(session: AsyncSession, source: Source, before: dict[str, Any], body: SourceUpdate) -> str:
    """Record an update, which is complete when the schedule in Prefect has it, too; return the id of the entry."""
    after = _settings_of(source)
    if "cron_expression" in body.model_fields_set:
        after["cron_expression"] = body.cron_expression
    return await record(
        session, "updated", "source", source.id, source.name, before=before, after=after, outcome=STARTED
    )


def _detail(source: Source, schedule: FetchSchedule) -> SourceDetail:
    return SourceDetail(
        **summary_of(source),
        config=redact(source.config),
        cron_expression=schedule.cron_expression,
        next_fetch_at=schedule.next_fetch_at,
        parser_type=ParserName(source.parser_type) if source.parser_type else None,
        parser_config=source.parser_config,
        last_fetch_error=source.last_fetch_error,
        total_fetches=source.total_fetches,
        success_rate=round(source.good_fetches / source.total_fetches, 4) if source.total_fetches else 0.0,
        avg_fetch_duration_ms=round(source.fetch_ms / source.good_fetches, 1) if source.good_fetches else None,
        last_content_hash=source.last_content_hash,
        last_etag=source.last_etag,
        last_modified=source.last_modified,
        updated_at=source.updated_at,
        created_by=source.created_by,
        schedule_id=str(source.schedule_id) if source.schedule_id else None,
    )


def _check_parser(source_type: str | None, name: ParserName | None, sent: dict[str, Any] | None) -> None:
    if source_type == SourceType.DATABASE and name not in (None, ParserName.PARQUET):
        reason = "the rows of a query are stored as parquet"
        raise BadRequest(f"The parser_type is invalid: {reason}.", [FieldError(("body", "parser_type"), reason)])
    try:
        ParserConfig.model_validate(sent or {})
    except ValidationError as refusal:
        errors = field_errors(refusal, "parser_config")
        problems = "; ".join(f"{'.'.join(map(str, error.loc[1:]))}: {error.msg}" for error in errors)
        raise BadRequest(f"The parser_config is invalid: {problems}.", errors) from None


async def _flush(session: AsyncSession, name: str) -> None:
    try:
        await session.flush()
    except IntegrityError as error:
        if "foreign key" in str(error.orig).lower():
            raise Conflict("The connection of this source was deleted during this request.") from None
        raise Conflict(f"A source named {name!r} already exists.") from None
