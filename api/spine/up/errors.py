"""What can end `spine up` early."""


class UpError(Exception):
    """The start or a child failed; the message is one sentence that a person can act on."""


class StopRequested(Exception):
    """SIGINT or SIGTERM arrived: stop every child and exit."""
