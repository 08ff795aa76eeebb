"""Checks of what this process connects to: the parts of `/health/ready`, clocks, results, the cache, stored secrets."""

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, timedelta
from importlib.metadata import version
from urllib.parse import urlsplit

from sqlalchemy import DateTime, func, select

from spine.cache.storage_check import StorageCheck
from spine.cache.store import BlobStore
from spine.database import SessionFactory, database_errors, make_engine, make_sessions, reading, require_database
from spine.database_clock import local_now
from spine.doctor.findings import Finding, degraded, down, up
from spine.egress.fetch_failure import FetchFailure
from spine.errors import SpineError
from spine.health_checks import Own, check_components
from spine.prefect.client import Prefect
from spine.prefect.diagnosis import ServerFacts, server_facts, try_result_storage
from spine.secrets.key_check import OwnKey
from spine.secrets.keyring import Keyring
from spine.secrets.sealed import count_sealed, unseal
from spine.settings import Settings
from spine.tables import SEALED_COLUMNS

SECONDS_FOR_A_CHECK = 10
# Leases and claims compare the times of several machines.
MOST_SKEW = timedelta(seconds=2)
_RESULTS_VARIABLE = "PREFECT_RESULTS_LOCAL_STORAGE_PATH"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

_ADVICE = {
    "prefect": "Start Prefect's server, or set PREFECT_API_URL and PREFECT_API_AUTH_STRING to those of one that runs.",
    "prefect_open": "Set PREFECT_SERVER_API_AUTH_STRING for its servers, PREFECT_API_AUTH_STRING for everyone else.",
    "database": "Run `spine db upgrade` if tables are missing or old; else check SPINE_DATABASE_URL and its server.",
    "worker": "Start one: prefect worker start --pool POOL --type spine. Its log has the reason if it does not stay.",
    "outbox": "One API process must run with SPINE_SEND_ALERTS=true; its log has the reason if it does not send.",
    "alerts": "POST /api/v1/alerts/channels/NAME/test shows why a channel fails.",
    "deployments": "Run `prefect deploy --all` where prefect.yaml is, and correct what it reports.",
    "follower": "One API process must run with SPINE_FOLLOW_RUNS=true; its log has the reason if it fails.",
    "records": "Correct the records that are named, or delete them.",
}
# Looked at by a check of its own below, which does more than a request may.
_TRIED_HERE = ("cache", "secrets")
# A worker serves no requests, and follows nothing.
_OF_A_WORKER = ("prefect", "prefect_open", "database", "worker")
_SYNCHRONISE = "Synchronise the clocks of all machines (chrony, systemd-timesyncd)."


async def check_services(settings: Settings, worker: bool) -> list[Finding]:
    """Check everything that needs a connection. Raises `ValueError` if no Prefect API is configured."""
    url = settings.sqlalchemy_url
    try:
        require_database(url)
    except SpineError as error:
        return [down("database", error.detail, _ADVICE["database"])]
    engine = make_engine(url)
    try:
        async with Prefect.connect(settings.prefect_deadline_seconds) as prefect:
            sessions = make_sessions(engine)
            store = BlobStore.from_settings(settings)
            own = Own(StorageCheck(sessions, store), OwnKey(sessions, Keyring.from_settings(settings)))
            components = await check_components(prefect, sessions, settings, own)
            found = [
                Finding(name, one.state, one.detail, _ADVICE[name])
                for name, one in components
                if name not in _TRIED_HERE and (not worker or name in _OF_A_WORKER)
            ]
            return [*found, *await _more(prefect, sessions, settings, own, url.get_backend_name())]
    finally:
        await engine.dispose()


async def _more(
    prefect: Prefect, sessions: SessionFactory, settings: Settings, own: Own, dialect: str
) -> list[Finding]:
    try:
        facts = await server_facts(prefect)
    except SpineError:
        # The check of `prefect` has reported it.
        facts = None
    checks: dict[str, Callable[[], Awaitable[Finding]]] = {
        "results": lambda: _check_results(settings),
        "cache": lambda: _check_cache(BlobStore.from_settings(settings), own.storage),
        "secrets": lambda: _check_secrets(sessions, settings, own.key),
    }
    found = [await _bounded(name, check) for name, check in checks.items()]
    return [_check_versions(facts), await _check_clock(facts, sessions, dialect), *found]


async def _bounded(name: str, check: Callable[[], Awaitable[Finding]]) -> Finding:
    advice = {
        "results": f"The API and all workers must read and write it; set {_RESULTS_VARIABLE} or a storage block.",
        "cache": "All workers and the API must read and write it; SPINE_CACHE_URL changes it.",
        "secrets": "Set SPINE_SECRET_KEY to the keys with which they were stored; a backup has them.",
    }[name]
    try:
        return await asyncio.wait_for(check(), SECONDS_FOR_A_CHECK)
    except TimeoutError:
        return down(name, f"no answer within {SECONDS_FOR_A_CHECK} s", advice)
    except (SpineError, FetchFailure) as error:
        return down(name, error.detail if isinstance(error, SpineError) else error.sentence, advice)
    except Exception as error:
        # Each kind of storage has errors of its own; their text can contain a password.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return down(name, f"it cannot be used from here ({reason})", advice)


def _check_versions(facts: ServerFacts | None) -> Finding:
    own = f"Spine {version('prefect-spine')}"
    if facts is None:
        return up("versions", own)
    detail = f"{own}, Prefect {facts.version_here} here and {facts.version_there} at its server"
    if facts.is_same_minor:
        return up("versions", detail)
    return degraded("versions", detail, "Install the same minor version of Prefect everywhere, its server first.")


async def _check_clock(facts: ServerFacts | None, sessions: SessionFactory, dialect: str) -> Finding:
    skews = {"Prefect's server": facts.ahead} if facts else {}
    if dialect == "postgresql":
        # The check of `database` reports an error.
        with suppress(SpineError):
            skews["the database's server"] = await _skew_of_database(sessions)
    if not skews:
        return up("clock", "nothing to compare with")
    where, skew = max(skews.items(), key=lambda each: abs(each[1]))
    words = "ahead of" if skew > timedelta(0) else "behind"
    detail = f"the clock of {where} is {abs(skew).total_seconds():.1f} s {words} this one"
    return degraded("clock", detail, _SYNCHRONISE) if abs(skew) > MOST_SKEW else up("clock", detail)


async def _skew_of_database(sessions: SessionFactory) -> timedelta:
    async with reading(sessions) as session:
        before = local_now()
        there = (await session.execute(select(func.clock_timestamp(type_=DateTime(timezone=True))))).scalar_one()
        middle = before + (local_now() - before) / 2
    return there.astimezone(UTC) - middle


async def _check_results(settings: Settings) -> Finding:
    storage = await try_result_storage()
    detail = f"results of steps can be written to {storage.detail} and read again"
    is_elsewhere = urlsplit(os.environ.get("PREFECT_API_URL", "")).hostname not in _LOOPBACK
    if storage.folder and is_elsewhere and _RESULTS_VARIABLE not in os.environ:
        return degraded(
            "results",
            f"results of steps stay on this machine, in {storage.detail}: a retry on another one does not find them",
            f"Set {_RESULTS_VARIABLE} to a folder that all machines share, or a storage block for all of them.",
        )
    return up("results", detail)


async def _check_cache(store: BlobStore, storage: StorageCheck) -> Finding:
    # Nothing is written to the store of another database.
    if not await storage.answers(SECONDS_FOR_A_CHECK):
        raise TimeoutError
    await asyncio.to_thread(_try_cache, store)
    return up("cache", "it is that of the database, and content can be written to it, read and deleted")


def _try_cache(store: BlobStore) -> None:
    staged = store.stage()
    try:
        staged.write(secrets.token_bytes(32))
        content_hash = staged.finish().content_hash
        store.publish(staged)
        with store.open(content_hash) as content:
            content.read()
        store.delete(content_hash)
    finally:
        staged.discard()


async def _check_secrets(sessions: SessionFactory, settings: Settings, key: OwnKey) -> Finding:
    await key.require()
    count = 0
    async with reading(sessions) as session:
        with database_errors():
            trees = [tree for column in SEALED_COLUMNS for tree in await session.scalars(select(column))]
    if any(count_sealed(tree) for tree in trees):
        keyring = Keyring.from_settings(settings)
        for tree in trees:
            unseal(tree, keyring)
            count += count_sealed(tree)
    return up("secrets", f"{count} stored secrets can be decrypted")
