"""One shared client for Prefect's REST API, with Prefect's errors translated and every wait bounded.

Every call may be repeated after a dropped connection, which Prefect's client does by itself within the deadline:
creations carry an idempotency key or are upserts, the rest sets what it sets.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from copy import copy
from typing import Any, Literal, Protocol, Self, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import get_current_settings
from pydantic import TypeAdapter, ValidationError

from spine.errors import BadRequest, Conflict, NotFound, PrefectUnavailable, SpineError
from spine.prefect.filters import Json

# Prefect's list routes return at most this many rows for one call.
MOST_ROWS = 200

UNKNOWN_SHAPE = "Prefect's API answered in a shape that Spine does not know; is it a version that Spine supports?"


class Identified(Protocol):
    """An object of Prefect with an id."""

    @property
    def id(self) -> UUID:
        """Prefect's id."""
        ...


Model = TypeVar("Model")
Object = TypeVar("Object", bound=Identified)


class Transport:
    """The way to Prefect's API; the calls themselves are in the classes built on this one."""

    def __init__(self, client: PrefectClient, deadline_seconds: float) -> None:
        self._client = client
        self._deadline_seconds = deadline_seconds
        self._ends_at: float | None = None
        # Prefect on SQLite answers creations that come at once with "database is locked", and its client then waits
        # for seconds: ten at once took 7 s, ten in turn 0.7 s.
        self._creating = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def connect(cls, deadline_seconds: float) -> AsyncIterator[Self]:
        """A door to the API that `PREFECT_API_URL` names; entering makes no call yet.

        Raises `ValueError` when the variable is not set: Prefect would start a server of its own otherwise.
        """
        if get_current_settings().api.url is None:
            raise ValueError("PREFECT_API_URL is not set; it names the Prefect API that Spine speaks to")
        async with get_client() as client:
            yield cls(client, deadline_seconds)

    def for_one_request(self) -> Self:
        """This door with one deadline over all calls that follow, so that several slow ones do not add up."""
        door = copy(self)
        door._ends_at = asyncio.get_running_loop().time() + self._deadline_seconds
        return door

    @property
    def ui_url(self) -> str | None:
        """Where people open Prefect's UI, without a slash at the end."""
        url = get_current_settings().ui_url
        return url.rstrip("/") if url else None

    async def check(self) -> None:
        """Ask Prefect whether it is up. Raises `PrefectUnavailable`."""
        await self._request("GET", "/health")

    async def _all(self, path: str, adapter: TypeAdapter[list[Object]], wanted: Json, sort: str) -> list[Object]:
        """Every row of a list route, page by page; `sort` must leave no ties, or pages could overlap."""
        rows: dict[UUID, Object] = {}
        offset = 0
        while True:
            page = await self._page(path, adapter, wanted, sort, offset, MOST_ROWS)
            # Rows that are added meanwhile push others onto the next page, where they are met once more.
            rows |= {row.id: row for row in page}
            if len(page) < MOST_ROWS:
                return list(rows.values())
            offset += MOST_ROWS

    async def _page(
        self, path: str, adapter: TypeAdapter[list[Model]], wanted: Json, sort: str, offset: int, limit: int
    ) -> list[Model]:
        response = await self._request("POST", path, {**wanted, "sort": sort, "offset": offset, "limit": limit})
        return parse(adapter, response)

    async def _object(self, path: str, model: type[Object]) -> Object:
        """One object by its path. Raises `NotFound`."""
        return parse(TypeAdapter(model), await self._request("GET", path))

    async def _request(
        self, method: Literal["GET", "POST", "PATCH", "DELETE"], path: str, body: Json | None = None
    ) -> httpx.Response:
        async with self._translated():
            # Prefect types the paths that it documents; the routes of its UI are not among them.
            return await self._client.request(method, path, json=_without_nul(body))  # type: ignore[arg-type]

    @asynccontextmanager
    async def _translated(self, conflict: type[SpineError] = Conflict) -> AsyncIterator[None]:
        """Bound the wait and translate what Prefect's client raises into Spine's errors."""
        try:
            now = asyncio.get_running_loop().time()
            async with asyncio.timeout_at(self._ends_at or now + self._deadline_seconds):
                yield
        except (TimeoutError, httpx.TransportError) as error:
            raise PrefectUnavailable("Prefect's API is out of reach; try again in a few seconds.") from error
        except ObjectNotFound as error:
            raise NotFound("Prefect has no such object.") from error
        except PrefectHTTPStatusError as error:
            raise _translate_status(error, conflict) from error
        except ValidationError as error:
            raise PrefectUnavailable(UNKNOWN_SHAPE) from error


def _without_nul(value: Any) -> Any:
    """A body that Prefect can look for on PostgreSQL, which takes no NUL even in a question; no name has one."""
    match value:
        case str():
            return value.replace("\x00", "\ufffd")
        case dict():
            return {name: _without_nul(inner) for name, inner in value.items()}
        case list():
            return [_without_nul(inner) for inner in value]
    return value


def parse(adapter: TypeAdapter[Model], response: httpx.Response) -> Model:
    """The object in an answer of Prefect. Raises `PrefectUnavailable` for one of another shape."""
    try:
        return adapter.validate_json(response.content)
    except ValidationError as error:
        raise PrefectUnavailable(UNKNOWN_SHAPE) from error


def _translate_status(error: PrefectHTTPStatusError, conflict: type[SpineError]) -> SpineError:
    status = error.response.status_code
    if status == httpx.codes.NOT_FOUND:
        return NotFound("Prefect has no such object.")
    if status == httpx.codes.CONFLICT:
        return conflict(_reason(error.response))
    if status in (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY):
        return BadRequest(f"Prefect refuses this: {_reason(error.response)}")
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return PrefectUnavailable("Prefect's API refuses the credentials that Spine was given.")
    return PrefectUnavailable(f"Prefect's API answered with status {status}; try again in a few seconds.")


def _reason(response: httpx.Response) -> str:
    try:
        answer = response.json()
    except ValueError:
        return f"status {response.status_code}"
    if not isinstance(answer, dict):
        return f"status {response.status_code}"
    problems = answer.get("exception_detail")
    if isinstance(problems, list):
        # Each problem also carries the offending input, which may be large or a secret.
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems)[:500]
    return str(answer.get("detail") or answer.get("exception_message") or f"status {response.status_code}")[:500]


def texts(ids: Collection[UUID]) -> list[str]:
    """Ids as JSON has them."""
    return [str(one) for one in ids]
