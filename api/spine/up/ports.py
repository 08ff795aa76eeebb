"""Checking that a port is free before anything is started."""

import errno
import socket

from spine.up.errors import UpError
from spine.up.plan import Plan


def check_ports(plan: Plan) -> None:
    """Raise `UpError` unless the ports that this start will listen on are free."""
    check_port(plan.host, plan.port, "--port", "--host")
    if plan.external_prefect:
        return
    if plan.port == plan.prefect_port:
        raise UpError(f"The API and Prefect cannot share port {plan.port}; change --port or --prefect-port.")
    check_port(plan.prefect_host, plan.prefect_port, "--prefect-port", "PREFECT_SERVER_API_HOST")


def check_port(host: str, port: int, port_option: str, host_option: str) -> None:
    """Raise `UpError`, naming the option to change, unless a server could listen on `host` and `port` now."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # Like the servers do: connections of an earlier start that are still closing do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen(1)
    except (socket.gaierror, UnicodeError):
        raise UpError(f"The host {host!r} is not known; choose another with {host_option}.") from None
    except OSError as error:
        raise UpError(_sentence(error, host, port, port_option, host_option)) from None


def _sentence(error: OSError, host: str, port: int, port_option: str, host_option: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is taken; stop what listens there or choose another with {port_option}."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; choose another with {host_option}."
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} is reserved for the administrator; choose another with {port_option}."
    return f"Port {port} on {host} cannot be used ({error.strerror}); choose another with {port_option}."
