"""Reads the rows of a list of Prefect around those that Prefect cannot send in a list.

Prefect answers 500 for a whole page if one run on it has parameters that are nested 254 levels deep or, before 3.9, a
whole number beyond 64 bits, and sends that run alone.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Generic, Literal, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from spine.errors import FieldError, NotFound, PrefectUnavailable
from spine.json_rule import presentable, problems_of
from spine.oddities import ODDITIES
from spine.prefect.filters import Json

Model = TypeVar("Model")
Request = Callable[[Literal["GET", "POST"], str, Json | None], Awaitable[httpx.Response]]

RUNS = "/flow_runs/filter"
RUN = "flow run"
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
# Halvings of one page. After them, each row that is left is read alone, so a page of n rows takes at most
# 1 + 2 * MOST_HALVINGS + n requests.
MOST_HALVINGS = 16
READ_AT_ONCE = 8
# Prefect's server closes the connection after it has failed. A request sent before that is seen would be dropped, and
# Prefect's client repeats it only after seconds.
SECONDS_TO_CLOSE = 0.1
# A page of at least this many rows without a valid one has a format that Spine does not know.
FEWEST_TO_JUDGE_A_FORMAT = 3

UNKNOWN_SHAPE = "The answer of Prefect's API has an unknown format; check that Spine supports this version of Prefect."


class PrefectUnreadable(PrefectUnavailable):
    """Prefect's API answered, but not in a way that can be read; one record may be the reason."""


class PrefectFailed(PrefectUnreadable):
    """Prefect's API answered 500: it failed, or it cannot send one of the rows."""


class Rows(list[Model]):
    """The rows of one page that could be read; `held` is how many the page has in Prefect."""

    def __init__(self, rows: Iterable[Model], held: int) -> None:
        super().__init__(rows)
        self.held = held


def kind_of(path: str) -> str:
    """What a list route lists, as a word: `flow run` for `/flow_runs/filter`."""
    return path.strip("/").partition("/")[0].removesuffix("s").replace("_", " ")


def parse_rows(adapter: TypeAdapter[list[Model]], response: httpx.Response, kind: str) -> Rows[Model]:
    """The rows of an answer without those of an unknown format. Raises `PrefectUnreadable` if none is left."""
    try:
        valid = adapter.validate_json(response.content)
        return Rows(valid, len(valid))
    except ValidationError as error:
        try:
            rows = json.loads(response.content)
        except (ValueError, RecursionError):
            rows = None
        if not isinstance(rows, list) or not all(isinstance(row, dict) and "id" in row for row in rows):
            raise PrefectUnreadable(UNKNOWN_SHAPE) from error
        found: list[Model] = []
        for row in rows:
            valid = _validated(adapter, row)
            found += valid
            reason = "it is nested too deep" if valid else "it has a format that Spine does not know"
            if not valid or problems_of(row):
                ODDITIES.found(kind, row["id"], reason)
        if not found and len(rows) >= FEWEST_TO_JUDGE_A_FORMAT:
            raise PrefectUnreadable(UNKNOWN_SHAPE) from error
        return Rows(found, len(rows))


def _validated(adapter: TypeAdapter[list[Model]], row: Json) -> list[Model]:
    """The row in a list, without what is nested too deep; empty if its format is unknown."""
    for tried in (row, presentable(row)):
        with suppress(ValidationError, RecursionError):
            return adapter.validate_json(json.dumps([tried]))
    return []


class Around(Generic[Model]):
    """One page that Prefect answered with 500, read in parts."""

    def __init__(self, request: Request, path: str, adapter: TypeAdapter[list[Model]], body: Json) -> None:
        self._request = request
        self._path = path
        self._adapter = adapter
        self._body = body
        self._halvings = MOST_HALVINGS
        self._has_answered = False
        self._kind = kind_of(path)

    def is_likely(self) -> bool:
        """Whether Prefect may fail for this page, because this process has met such flow runs within the last hour."""
        return self._path == RUNS and any(one.kind == RUN for one in ODDITIES.recent())

    async def read(self) -> Rows[Model]:
        """The rows of the page, in order. Raises `PrefectUnavailable` if Prefect fails for any other reason."""
        if self._path == RUNS:
            return await self._runs()
        places: list[int] = []
        rows = await self._part(self._body["offset"], self._body["limit"], places)
        if not self._has_answered:
            raise PrefectFailed("Prefect's API answered with status 500; try again in a few seconds.")
        for place in places:
            ODDITIES.found(self._kind, f"number {place + 1} of a list", "Prefect cannot send it, so it is left out")
        return Rows(rows, rows.held + len(places))

    # Flow runs: Prefect can list their ids, so the parts do not depend on how it orders equal times.

    async def _runs(self) -> Rows[Model]:
        history = await self._request("POST", "/ui/flow_runs/history", self._body)
        ids = [str(row["id"]) for row in history.json()]
        known = [one for one in ids if ODDITIES.knows(RUN, one)]
        found = await self._of_ids([one for one in ids if one not in set(known)]) | await self._alone(known)
        return Rows([found[one] for one in ids if one in found], len(ids))

    async def _of_ids(self, ids: Sequence[str]) -> dict[str, Model]:
        if not ids:
            return {}
        # The other conditions stay: a run may have changed since its id was listed.
        of_ids = {**self._body.get("flow_runs", {}), "id": {"any_": list(ids)}}
        body = {**self._body, "flow_runs": of_ids, "sort": "ID_DESC", "offset": 0, "limit": len(ids)}
        try:
            rows = parse_rows(self._adapter, await self._request("POST", RUNS, body), RUN)
        except PrefectFailed:
            self._halvings -= 1
            await asyncio.sleep(SECONDS_TO_CLOSE)
            if len(ids) == 1 or self._halvings <= 0:
                found = await self._alone(ids)
                if len(ids) == 1 and found and not ODDITIES.knows(RUN, ids[0]):
                    ODDITIES.found(RUN, ids[0], "Prefect cannot send it in a list")
                return found
            middle = len(ids) // 2
            return await self._of_ids(ids[:middle]) | await self._of_ids(ids[middle:])
        return {_id(row): row for row in rows}

    async def _alone(self, ids: Sequence[str]) -> dict[str, Model]:
        found: list[Model] = []
        for start in range(0, len(ids), READ_AT_ONCE):
            some = await asyncio.gather(*(self._one(one) for one in ids[start : start + READ_AT_ONCE]))
            found += [row for rows in some for row in rows]
        return {_id(row): row for row in found}

    async def _one(self, run_id: str) -> list[Model]:
        """The run in a list, which is empty if it was deleted or cannot be read at all."""
        try:
            response = await self._request("GET", f"/flow_runs/{run_id}", None)
            rows = _validated(self._adapter, json.loads(response.content))
        except NotFound:
            return []
        except PrefectFailed:
            rows = []
        if not rows:
            ODDITIES.found(RUN, run_id, "Prefect cannot send it, so its parameters and tags are left out")
            return await self._outline(run_id)
        for row in rows:
            if problems := problems_of(getattr(row, "parameters", {})):
                ODDITIES.found(RUN, run_id, f"its parameters are not exact JSON: {named(problems)}")
        return rows

    async def _outline(self, run_id: str) -> list[Model]:
        """What Prefect's other routes have of a run that it cannot send."""
        of_run = {"flow_runs": {"id": {"any_": [run_id]}}, "limit": 1}
        states = (await self._request("GET", f"/flow_run_states/?flow_run_id={run_id}", None)).json()
        flows = (await self._request("POST", "/flows/filter", of_run)).json()
        deployments = (await self._request("POST", "/deployments/filter", of_run)).json()
        if not flows or not states:
            return []
        states.sort(key=lambda state: str(state["timestamp"]))
        started = [state["timestamp"] for state in states if state["type"] == "RUNNING"]
        final = states[-1]["timestamp"] if states[-1]["type"] in FINAL else None
        outline = {
            "id": run_id,
            "flow_id": flows[0]["id"],
            "deployment_id": deployments[0]["id"] if deployments else None,
            "created": states[0]["timestamp"],
            "expected_start_time": states[0]["timestamp"],
            "start_time": started[0] if started else final,
            "end_time": final,
            "run_count": len(started),
            "state": states[-1],
            "state_id": states[-1]["id"],
            "state_type": states[-1]["type"],
            "state_name": states[-1]["name"],
        }
        return self._adapter.validate_json(json.dumps([outline]))

    # All others: by their place in the list.

    async def _part(self, offset: int, limit: int, unreadable: list[int]) -> Rows[Model]:
        body = {**self._body, "offset": offset, "limit": limit}
        try:
            rows = parse_rows(self._adapter, await self._request("POST", self._path, body), self._kind)
        except PrefectFailed:
            self._halvings -= 1
            await asyncio.sleep(SECONDS_TO_CLOSE)
            if self._halvings <= 0 or (limit == 1 and not self._has_answered and offset > self._body["offset"]):
                # Prefect fails for another reason than one row.
                raise
            if limit == 1:
                unreadable.append(offset)
                return Rows([], 0)
            middle = limit // 2
            first = await self._part(offset, middle, unreadable)
            second = await self._part(offset + middle, limit - middle, unreadable)
            return Rows([*first, *second], first.held + second.held)
        self._has_answered = True
        return rows


def named(problems: Sequence[FieldError]) -> str:
    """Problems of parameters as one text, without their values."""
    shown = [f"{'.'.join(map(str, one.loc)) or 'all'}: {one.msg}" for one in problems[:3]]
    return "; ".join(shown + ([f"and {len(problems) - 3} more"] if len(problems) > 3 else []))


def _id(row: Any) -> str:
    return str(row.id)
