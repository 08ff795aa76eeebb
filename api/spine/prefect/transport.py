"""One shared client for Prefect's REST API, which translates Prefect's errors and bounds every wait.

Prefect's client repeats a request after a dropped connection, within the deadline. All requests are safe to repeat:
those that create something have an idempotency key or are upserts, and the others are idempotent.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from copy import copy
from typing import Any, Generic, Literal, Protocol, Self, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import get_current_settings
from pydantic import BaseModel, TypeAdapter, ValidationError

from spine.errors import BadRequest, Conflict, NotFound, PrefectUnavailable, SpineError
from spine.json_rule import presentable
from spine.measures import prefect_called
from spine.prefect.around import (
    SECONDS_TO_CLOSE,
    UNKNOWN_SHAPE,
    Around,
    PrefectFailed,
    PrefectUnreadable,
    Rows,
    kind_of,
    parse_rows,
)
from spine.prefect.filters import Json
from spine.tracing import call_span

# Prefect's list routes return at most this many rows for one request.
MOST_ROWS = 200

# How a call ended, by the status of the error that it became.
_RESULTS = {400: "refused", 404: "not_found", 409: "conflict"}

# Less than the health checks wait.
_SECONDS_FOR_A_STRANGER = 2.0


class Identified(Protocol):
    """An object of Prefect with an id."""

    @property
    def id(self) -> UUID:
        """Prefect's id."""
        ...


Model = TypeVar("Model")
Object = TypeVar("Object", bound=Identified)


class Counted(BaseModel, Generic[Model]):
    """One page of a list route with the number of all rows that match."""

    results: list[Model]
    count: int


# How the rows of a list are read without and with their count.
CountedAdapters = tuple[TypeAdapter[list[Model]], TypeAdapter[Counted[Model]]]


class Transport:
    """The connection to Prefect's API; subclasses define the requests."""

    def __init__(self, client: PrefectClient, deadline_seconds: float) -> None:
        self._client = client
        self._deadline_seconds = deadline_seconds
        self._ends_at: float | None = None
        self._flow_names: dict[UUID, str] = {}

    @classmethod
    @asynccontextmanager
    async def connect(cls, deadline_seconds: float) -> AsyncIterator[Self]:
        """A connection to the API at `PREFECT_API_URL`; the first request comes later.

        Raises `ValueError` if the variable is not set: Prefect's client would start its own server.
        """
        if get_current_settings().api.url is None:
            raise ValueError("PREFECT_API_URL is not set; set it to the URL of the Prefect API that Spine should use")
        async with get_client() as client:
            yield cls(client, deadline_seconds)

    def for_one_request(self) -> Self:
        """This connection with one deadline for all its requests together, so that several slow ones do not add up."""
        connection = copy(self)
        connection._ends_at = asyncio.get_running_loop().time() + self._deadline_seconds
        return connection

    @property
    def api_url(self) -> str | None:
        """The URL of Prefect's API."""
        return get_current_settings().api.url

    @property
    def ui_url(self) -> str | None:
        """The URL of Prefect's UI, without a slash at the end."""
        url = get_current_settings().ui_url
        return url.rstrip("/") if url else None

    async def check(self) -> None:
        """Check that Prefect's API answers. Raises `PrefectUnavailable`."""
        await self._request("GET", "/health")

    async def server_version(self) -> tuple[str, str | None]:
        """The version of Prefect's server, and the time of its answer as its header `Date` has it."""
        response = await self._request("GET", "/admin/version")
        return str(response.json()), response.headers.get("date")

    async def answers_anyone(self) -> bool:
        """Whether Prefect's API answers a request that has no credential of any kind.

        Raises `PrefectUnavailable` if it does not answer at all.
        """
        # All routes but that of the health need the credential, if there is one. This one is cheap.
        url = f"{str(self._client.api_url).rstrip('/')}/admin/version"
        verify = url.startswith("https:") and not get_current_settings().api.tls_insecure_skip_verify
        async with (
            self._translated("GET /admin/version"),
            httpx.AsyncClient(verify=verify, timeout=_SECONDS_FOR_A_STRANGER) as stranger,
        ):
            return (await stranger.get(url)).status_code == httpx.codes.OK

    async def _all(self, path: str, adapter: TypeAdapter[list[Object]], wanted: Json, sort: str) -> list[Object]:
        """Every row of a list route, read page by page; `sort` must leave no ties, or pages could overlap."""
        rows: dict[UUID, Object] = {}
        offset = 0
        while True:
            page = await self._page(path, adapter, wanted, sort, offset, MOST_ROWS)
            # Rows that are added meanwhile move others to the next page, where they are read a second time.
            rows |= {row.id: row for row in page}
            if page.held < MOST_ROWS:
                return list(rows.values())
            offset += MOST_ROWS

    async def _page(
        self, path: str, adapter: TypeAdapter[list[Model]], wanted: Json, sort: str, offset: int, limit: int
    ) -> Rows[Model]:
        """One page, without rows that Prefect cannot send or whose format is unknown: these are set aside and named."""
        body = {**wanted, "sort": sort, "offset": offset, "limit": limit}
        around = Around(self._request, path, adapter, body)
        if around.is_likely():
            # Each failure costs Prefect a traceback and a connection.
            with suppress(PrefectFailed):
                return await around.read()
        try:
            return parse_rows(adapter, await self._request("POST", path, body), kind_of(path))
        except PrefectFailed:
            await asyncio.sleep(SECONDS_TO_CLOSE)
            return await Around(self._request, path, adapter, body).read()

    async def _counted_page(
        self, path: str, adapters: CountedAdapters[Model], wanted: Json, sort: str, page: int, size: int
    ) -> tuple[Rows[Model], int]:
        """Page number `page`, from 1 on, of what `path` lists, and how many rows match: one call.

        If one row cannot be sent or has an unknown format, the page is read around it, as `_page` does.
        """
        rows, counted = adapters
        lists, offset = f"{path}/filter", (page - 1) * size
        body = {**wanted, "sort": sort, "limit": size}
        if not Around(self._request, lists, rows, {**body, "offset": offset}).is_likely():
            try:
                found = parse(counted, await self._request("POST", f"{path}/paginate", {**body, "page": page}))
                return Rows(found.results, len(found.results)), found.count
            except PrefectUnreadable:
                await asyncio.sleep(SECONDS_TO_CLOSE)
        count = int((await self._request("POST", f"{path}/count", wanted)).json())
        return await self._page(lists, rows, wanted, sort, offset, size), count

    async def _object(self, path: str, model: type[Object]) -> Object:
        """One object by its path. Raises `NotFound`."""
        return parse(TypeAdapter(model), await self._request("GET", path))

    async def _request(
        self, method: Literal["GET", "POST", "PATCH", "DELETE"], path: str, body: Json | None = None
    ) -> httpx.Response:
        async with self._translated(f"{method} {path}"):
            # Prefect types the paths that it documents, which do not include the routes of its UI.
            return await self._client.request(method, path, json=_without_nul(body))  # type: ignore[arg-type]

    @asynccontextmanager
    async def _translated(self, call: str, conflict: type[SpineError] = Conflict) -> AsyncIterator[None]:
        """Bound the wait, translate the errors of Prefect's client into Spine's, and measure the call.

        `call` is what its span is called: a method and a path, of which ids are left out.
        """
        began = asyncio.get_running_loop().time()
        result = "unavailable"
        try:
            with call_span(call):
                async with self._bounded(conflict):
                    yield
            result = "ok"
        except SpineError as error:
            result = _RESULTS.get(error.status_code, result)
            raise
        finally:
            prefect_called(result, asyncio.get_running_loop().time() - began)

    @asynccontextmanager
    async def _bounded(self, conflict: type[SpineError]) -> AsyncIterator[None]:
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
            raise PrefectUnreadable(UNKNOWN_SHAPE) from error


def _without_nul(value: Any) -> Any:
    """The body without NUL, which PostgreSQL rejects even in a query; no name contains one, so none is missed."""
    match value:
        case str():
            return value.replace("\x00", "\ufffd")
        case dict():
            return {name: _without_nul(inner) for name, inner in value.items()}
        case list():
            return [_without_nul(inner) for inner in value]
    return value


def parse(adapter: TypeAdapter[Model], response: httpx.Response) -> Model:
    """The object in Prefect's answer. Raises `PrefectUnavailable` if the answer has another format."""
    try:
        return adapter.validate_json(response.content)
    except ValidationError as error:
        with suppress(ValueError, RecursionError):
            # A run can be nested deeper than the parser reads.
            return adapter.validate_json(json.dumps(presentable(json.loads(response.content))))
        raise PrefectUnreadable(UNKNOWN_SHAPE) from error


def _translate_status(error: PrefectHTTPStatusError, conflict: type[SpineError]) -> SpineError:
    status = error.response.status_code
    if status == httpx.codes.NOT_FOUND:
        return NotFound("Prefect has no such object.")
    if status == httpx.codes.CONFLICT:
        return conflict(_reason(error.response))
    if status in (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY):
        return BadRequest(f"Prefect rejected the request: {_reason(error.response)}")
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return PrefectUnavailable("Prefect's API rejected Spine's credentials.")
    kind = PrefectFailed if status == httpx.codes.INTERNAL_SERVER_ERROR else PrefectUnavailable
    return kind(f"Prefect's API answered with status {status}; try again in a few seconds.")


def _reason(response: httpx.Response) -> str:
    try:
        answer = response.json()
    except ValueError:
        return f"status {response.status_code}"
    if not isinstance(answer, dict):
        return f"status {response.status_code}"
    problems = answer.get("exception_detail")
    if isinstance(problems, list):
        # Each problem also contains the invalid input, which may be large or a secret.
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems)[:500]
    return str(answer.get("detail") or answer.get("exception_message") or f"status {response.status_code}")[:500]


def texts(ids: Collection[UUID]) -> list[str]:
    """Ids as strings, for JSON."""
    return [str(one) for one in ids]
