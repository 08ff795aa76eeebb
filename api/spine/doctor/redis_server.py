"""The check of the Redis that several Prefect servers share, where the environment names it."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from spine.doctor.findings import Finding, degraded, down, up

_NAME = "redis"
_HOST, _PORT = "PREFECT_REDIS_MESSAGING_HOST", "PREFECT_REDIS_MESSAGING_PORT"
_WANTED = ("appendonly", "save", "maxmemory", "maxmemory-policy")
_ON_DISK = (
    "Start Redis with --appendonly yes --maxmemory-policy noeviction: after it has lost its memory, Prefect plans no "
    "runs and marks none as late for minutes, without an error."
)


def check_redis(environ: Mapping[str, str]) -> list[Finding]:
    """Whether Redis answers, keeps what it has on disk, and evicts nothing; empty if none is configured here."""
    docket = urlsplit(environ.get("PREFECT_SERVER_DOCKET_URL", ""))
    if not environ.get(_HOST) and not docket.scheme.startswith("redis"):
        return []
    # Imported here: only Prefect's servers have it.
    import redis

    host = environ.get(_HOST) or docket.hostname or "localhost"
    port = int(environ.get(_PORT) or docket.port or 6379)
    username = environ.get("PREFECT_REDIS_MESSAGING_USERNAME") or docket.username
    password = environ.get("PREFECT_REDIS_MESSAGING_PASSWORD") or docket.password
    is_encrypted = docket.scheme == "rediss" or environ.get("PREFECT_REDIS_MESSAGING_SSL", "").lower() == "true"
    place = f"{host}:{port}"
    try:
        with redis.Redis(
            host=host, port=port, username=username, password=password, socket_timeout=3, ssl=is_encrypted
        ) as client:
            client.ping()
            return [_judged(place, {name: str(client.config_get(name).get(name, "")) for name in _WANTED})]
    except redis.ResponseError:
        return [up(_NAME, f"Redis at {place} answers; it does not show whether it keeps what it has on disk")]
    except redis.RedisError as error:
        kind = type(error).__name__
        return [down(_NAME, f"Redis at {place} does not answer ({kind})", f"Start it, or change {_HOST} and {_PORT}.")]


def _judged(place: str, found: Mapping[str, str]) -> Finding:
    if found["appendonly"] != "yes":
        kept = "only now and then" if found["save"] else "nothing"
        return degraded(_NAME, f"Redis at {place} keeps {kept} on disk", _ON_DISK)
    if found["maxmemory"] not in ("0", "") and found["maxmemory-policy"] != "noeviction":
        return degraded(_NAME, f"Redis at {place} evicts what it has when its memory is full", _ON_DISK)
    return up(_NAME, f"Redis at {place} keeps what it has on disk")
