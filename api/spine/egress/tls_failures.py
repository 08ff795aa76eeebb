"""Why a TLS handshake failed, from the error of OpenSSL that a client library has wrapped in its own."""

import ssl
from collections.abc import Iterator

from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

# What the reasons of OpenSSL mean, by a part of their names.
_MEANINGS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS at this port",
    "PACKET_LENGTH_TOO_LONG": "it does not speak TLS at this port",
    "RECORD_LAYER_FAILURE": "it does not speak TLS at this port",
    "HTTP_REQUEST": "it does not speak TLS at this port",
    "PROTOCOL_VERSION": "it has no version of TLS that Spine accepts, which are 1.2 and later",
    "UNSUPPORTED_PROTOCOL": "it has no version of TLS that Spine accepts, which are 1.2 and later",
    "HANDSHAKE_FAILURE": "it has no cipher that Spine accepts, or requires a certificate of the client",
    "CERTIFICATE_REQUIRED": "it requires a certificate of the client",
    "KEY_TOO_SMALL": "its key is too short to be secure",
    "MD_TOO_WEAK": "its certificate has a signature that is not secure",
}


def tls_failure(error: BaseException, host: str) -> FetchFailure | None:
    """The failure for the error of OpenSSL in the causes of an error; None without one, or if a retry may help."""
    for cause in _causes(error):
        # Errors of other libraries are subclasses of these without their attributes.
        untrusted, reason = getattr(cause, "verify_message", None), getattr(cause, "reason", None)
        if isinstance(cause, ssl.SSLCertVerificationError) and untrusted:
            sentence = f"{host} has a certificate that is not trusted: {untrusted.rstrip('.')}."
            return FetchFailure(ErrorCategory.NETWORK, sentence)
        is_closed = isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
        if isinstance(cause, ssl.SSLError) and reason and not is_closed:
            plain = reason.replace("_", " ").lower()
            meaning = next((meaning for part, meaning in _MEANINGS.items() if part in reason), plain)
            return FetchFailure(ErrorCategory.NETWORK, f"{host} cannot be reached over TLS: {meaning}.")
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it results from, also what a library keeps in its arguments."""
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        one = pending.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        # botocore keeps it in `kwargs`.
        pending += [one.__cause__, one.__context__, *one.args, *getattr(one, "kwargs", {}).values()]
