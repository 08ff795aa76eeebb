"""What S3 and the client for it say when something is wrong, in sentences without what may be secret."""

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
    SSLError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from spine.egress.fetch_failure import FetchFailure
from spine.egress.guarded_call import GuardedCall
from spine.schemas import ErrorCategory
from spine.sources.readers.base import not_there, not_whole

_LOGIN = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_MISSING = {"NoSuchKey", "NoSuchBucket", "NoSuchVersion"}
_BUSY = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "InternalError", "ServiceUnavailable"}


def status_of(error: BaseException) -> int | None:
    """The HTTP status that a store answered, where it did."""
    if not isinstance(error, ClientError):
        return None
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def failure_of(error: Exception, key: str, work: GuardedCall, endpoint_url: str | None) -> FetchFailure:
    """What an exception of the client means for reading `key`; anything that it does not know is raised again."""
    if isinstance(error, FetchFailure):
        return error
    if isinstance(error, ClientError):
        return _answered(error, key)
    if isinstance(error, IncompleteReadError | ResponseStreamingError | aiohttp.ClientPayloadError):
        return not_whole(key)
    if isinstance(error, SSLError):
        return FetchFailure(ErrorCategory.NETWORK, f"The store of {key} has a certificate that is not trusted.")
    if isinstance(error, BotoConnectionError | HTTPClientError | aiohttp.ClientError | TimeoutError | OSError):
        host = (urlsplit(endpoint_url).hostname if endpoint_url else None) or "The store"
        sentence = f"The store of {key} cannot be reached, or broke off."
        return work.refusal(host) or FetchFailure(ErrorCategory.NETWORK, sentence, transient=True)
    if isinstance(error, ParamValidationError | BotoCoreError | ValueError):
        return FetchFailure(ErrorCategory.CONFIG, f"The client for S3 cannot ask for {key} with this config.")
    raise error


def _answered(error: ClientError, key: str) -> FetchFailure:
    told = str(error.response.get("Error", {}).get("Code", ""))
    status = status_of(error) or 0
    code = told if re.fullmatch(r"[A-Za-z0-9.]{1,64}", told) else str(status)
    if told in _MISSING or status == 404:
        return not_there(key)
    if told in _LOGIN or status in (401, 403):
        return FetchFailure(ErrorCategory.AUTH, f"The store does not let Spine read {key} (it answers {code}).")
    if told in _BUSY or status in (408, 429) or status >= 500:
        sentence = f"The store cannot give {key} now (it answers {code})."
        return FetchFailure(ErrorCategory.NETWORK, sentence, transient=True)
    return FetchFailure(ErrorCategory.SOURCE, f"The store does not give {key} (it answers {code}).")
