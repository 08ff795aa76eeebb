"""HTTP in the tests: requests with the patience that a busy machine needs, and servers that stop at once.

httpx gives up after five seconds, and reads the machine's certificates for each request; tests do neither.
"""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

import httpx

from tests.support.processes import wait_until

# Nothing that tests request here is encrypted.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
PATIENCE = 60.0
# On SQLite, Prefect's own server stands still now and then, for the minute that it waits for a lock of its own.
LONGEST_OUTAGE = 100

# Without connections that are kept: a test may have stopped the server at the other end.
WEB = httpx.Client(timeout=PATIENCE, verify=PLAIN, limits=httpx.Limits(max_keepalive_connections=0))


class Patient(httpx.HTTPTransport):
    """Asks again where the API says that Prefect is out of reach, as its clients are told to."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request until the answer is another one than 503."""
        answers: list[httpx.Response] = []

        def answered() -> bool:
            answers[:] = [super(Patient, self).handle_request(request)]
            if answers[0].status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return True
            answers[0].read()
            return False

        wait_until(answered, "the API to reach Prefect", LONGEST_OUTAGE, every=1)
        return answers[0]


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Serve in a thread; afterwards the server is closed."""
    # It looks this often whether it is to stop; the half second that is usual adds up over hundreds of tests.
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
