"""Errors of S3 and its client, translated into failures without secrets."""

import re
from urllib.parse import urlsplit

import aiohttp
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    ParamValidationError,
    ResponseStreamingError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from spine.egress.fetch_failure import FetchFailure
from spine.egress.guarded_call import GuardedCall
from spine.egress.tls_failures import tls_failure
from spine.schemas import ErrorCategory
from spine.sources.readers.base import incomplete, not_found

_LOGIN = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_MISSING = {"NoSuchKey", "NoSuchBucket", "NoSuchVersion"}
_BUSY = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "InternalError", "ServiceUnavailable"}


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an error response; None for other errors."""
    if not isinstance(error, ClientError):
        return None
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def failure_of(error: Exception, key: str, guarded: GuardedCall, endpoint_url: str | None) -> FetchFailure:
    """The failure for an exception of the client while reading `key`; unknown exceptions are raised again."""
    if isinstance(error, FetchFailure):
        return error
    if isinstance(error, ClientError):
        return _error_response_failure(error, key)
    if isinstance(error, IncompleteReadError | ResponseStreamingError | aiohttp.ClientPayloadError):
        return incomplete(key)
    if (insecure := tls_failure(error, f"The store of {key}")) is not None:
        return insecure
    if isinstance(error, BotoConnectionError | HTTPClientError | aiohttp.ClientError | TimeoutError | OSError):
        host = (urlsplit(endpoint_url).hostname if endpoint_url else None) or "the store"
        sentence = f"The connection to the store of {key} failed or was closed."
        return guarded.refusal(host) or FetchFailure(ErrorCategory.NETWORK, sentence, transient=True)
    if isinstance(error, ParamValidationError | BotoCoreError | ValueError):
        return FetchFailure(ErrorCategory.CONFIG, f"The S3 client cannot request {key} with this configuration.")
    raise error


def _error_response_failure(error: ClientError, key: str) -> FetchFailure:
    reported = str(error.response.get("Error", {}).get("Code", ""))
    status = status_of(error) or 0
    code = reported if re.fullmatch(r"[A-Za-z0-9.]{1,64}", reported) else str(status)
    if reported in _MISSING or status == 404:
        return not_found(key)
    if reported in _LOGIN or status in (401, 403):
        return FetchFailure(ErrorCategory.AUTH, f"The store denied access to {key} ({code}).")
    if reported in _BUSY or status in (408, 429) or status >= 500:
        sentence = f"The store cannot send {key} at the moment ({code})."
        return FetchFailure(ErrorCategory.NETWORK, sentence, transient=True)
    return FetchFailure(ErrorCategory.SOURCE, f"The store did not send {key} ({code}).")
