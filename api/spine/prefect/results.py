"""Persisted results, read as JSON and never unpickled.

Prefect stores a task's result as one record `{"metadata": {...}, "result": "<serialized>"}` and a flow's result as the
serialized value alone, with the metadata in the state. Only results of the `json` serializer are read, with the plain
JSON decoder: Prefect's decoder would import classes that are named in the data.

Prefect 3.8: `prefect.results.ResultStore`.
"""

import asyncio
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.blocks.core import Block
from prefect.settings import get_current_settings
from pydantic import BaseModel

from spine.errors import SpineError
from spine.json_rule import presentable
from spine.prefect.client import Prefect

# Larger results are not read: they would only take memory in the answer to a request about a run.
MOST_BYTES = 8 * 1024 * 1024

EXPIRED = datetime(1970, 1, 1, tzinfo=UTC)


class ResultUnreadable(Exception):
    """The result cannot be read from here. The message is the reason, worded to follow "because"."""


class NoResult(ResultUnreadable):
    """There is none: the flow or task does not persist its results."""


@dataclass(frozen=True)
class ResultReference:
    """The place of a result, from the data of a state."""

    storage_key: str
    storage_block_id: UUID | None
    serializer: str

    @classmethod
    def of(cls, state_data: Any) -> "ResultReference":
        """The reference in a state's data. Raises `NoResult` if the state has no persisted result."""
        data = state_data.model_dump(mode="json") if isinstance(state_data, BaseModel) else state_data
        if not isinstance(data, dict) or not data.get("storage_key"):
            raise NoResult("its result is not persisted (persist_result=True)")
        block_id = data.get("storage_block_id")
        serializer = str((data.get("serializer") or {}).get("type"))
        return cls(str(data["storage_key"]), UUID(str(block_id)) if block_id else None, serializer)


async def read_result(prefect: Prefect, state_data: Any) -> Any:
    """The JSON value of a state's result, as it can be sent to clients. Raises `ResultUnreadable`."""
    reference = ResultReference.of(state_data)
    content = _decode(await _read(prefect, reference), reference)
    if _is_record(content):
        content = _decode(str(content["result"]).encode(errors="replace"), reference)
    return presentable(content)


async def check_reusable(
    prefect: Prefect, state_data: Any, *, is_flow: bool = False, expired_too: bool = False
) -> None:
    """Check that Prefect would reuse this result in a retry. Raises `ResultUnreadable` if it would not.

    A flow's result has no metadata, so with `is_flow` only its existence is checked; `expired_too` accepts an expired
    result.
    """
    reference = ResultReference.of(state_data)
    if is_flow:
        await _read(prefect, reference)
        return
    record = await _read_record(prefect, reference)
    expiration = record["metadata"].get("expiration")
    if expiration and not expired_too and datetime.fromisoformat(expiration) <= datetime.now(UTC):
        raise ResultUnreadable("its persisted result has expired")


async def expire_result(prefect: Prefect, state_data: Any) -> None:
    """Mark a task's result as expired, so that Prefect runs the task again; the value stays readable.

    Safe to repeat. Raises `ResultUnreadable` if the record cannot be read or written from here.
    """
    reference = ResultReference.of(state_data)
    record = await _read_record(prefect, reference)
    record["metadata"]["expiration"] = EXPIRED.isoformat()
    content = json.dumps(record).encode()
    if reference.storage_block_id is None:
        await asyncio.to_thread(_replace_file, _local_path(reference.storage_key), content)
        return
    await _call_block(prefect, reference, "write_path", content)


async def _read_record(prefect: Prefect, reference: ResultReference) -> dict[str, Any]:
    record = json.loads(await _read(prefect, reference))
    if not _is_record(record):
        raise ResultUnreadable("its result is stored without metadata")
    return dict(record)


def _is_record(content: Any) -> bool:
    return (
        isinstance(content, dict) and content.keys() == {"metadata", "result"} and "storage_key" in content["metadata"]
    )


def _decode(content: bytes, reference: ResultReference) -> Any:
    if reference.serializer != "json":
        raise ResultUnreadable(f"its result is stored as {reference.serializer}, not json (result_serializer='json')")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ResultUnreadable("its stored result is not valid JSON") from error


async def _read(prefect: Prefect, reference: ResultReference) -> bytes:
    if reference.storage_block_id is None:
        return await asyncio.to_thread(_read_file, _local_path(reference.storage_key))
    content = await _call_block(prefect, reference, "read_path")
    if not isinstance(content, bytes):
        raise ResultUnreadable("its storage block did not return bytes")
    return content


def _local_path(storage_key: str) -> Path:
    """The file of a key. Raises `ResultUnreadable` if it is outside Prefect's result storage."""
    base = get_current_settings().results.local_storage_path.expanduser().resolve()
    path = (base / storage_key).resolve()
    if not path.is_relative_to(base):
        raise ResultUnreadable("its result is outside the result storage that the API can read")
    return path


def _read_file(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ResultUnreadable(f"its result is larger than {MOST_BYTES:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ResultUnreadable("the API cannot read its persisted result") from error


def _replace_file(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".expired")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise ResultUnreadable("the API cannot write its persisted result") from error


async def _call_block(prefect: Prefect, reference: ResultReference, method: str, *arguments: Any) -> Any:
    if reference.storage_block_id is None:
        raise ResultUnreadable("its result has no storage block")
    try:
        document = await prefect.read_block_document(reference.storage_block_id)
        block = Block._from_block_document(document)
        call: Callable[..., Any] = getattr(block, f"a{method}", None) or getattr(block, method)
        answer = call(reference.storage_key, *arguments)
        return await answer if inspect.isawaitable(answer) else answer
    except SpineError:
        raise
    except Exception as error:
        # A storage block runs third-party code on any cloud's client: any error means that it cannot be reached.
        raise ResultUnreadable("the API cannot reach its result storage block") from error
