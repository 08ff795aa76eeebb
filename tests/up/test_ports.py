import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from spine.up.plan import LOOPBACK, address, check_port, check_ports
from spine.up.waiting import UpError

from tests.support.processes import free_port
from tests.up.support import plan_for


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_free_port_passes() -> None:
    check_port(LOOPBACK, free_port(), "--port", "--host")


def test_a_taken_port_is_a_sentence_that_names_the_option(taken_port: int) -> None:
    with pytest.raises(UpError, match=rf"Port {taken_port} on 127\.0\.0\.1 is in use; .* with --port\."):
        check_port(LOOPBACK, taken_port, "--port", "--host")


def test_a_port_taken_on_loopback_is_taken_for_all_addresses(taken_port: int) -> None:
    with pytest.raises(UpError, match="is in use"):
        check_port("0.0.0.0", taken_port, "--port", "--host")  # noqa: S104 (the case under test)


@pytest.mark.parametrize(
    ("host", "sentence"), [("no-such-host.invalid", "is not known"), ("192.0.2.1", "is not an address of this machine")]
)
def test_a_host_that_cannot_be_bound_is_a_sentence(host: str, sentence: str) -> None:
    with pytest.raises(UpError, match=sentence):
        check_port(host, free_port(), "--port", "--host")


def test_prefects_port_is_not_checked_when_prefect_runs_elsewhere(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, external_prefect="http://prefect.example/api")
    with socket.create_server((LOOPBACK, plan.prefect_port)):
        check_ports(plan)
        with pytest.raises(UpError, match="--prefect-port"):
            check_ports(replace(plan, external_prefect=None))


def test_a_port_that_is_still_closing_is_waited_for(tmp_path: Path, taken_port: int) -> None:
    plan = replace(plan_for(tmp_path), port=taken_port)
    with pytest.raises(UpError, match="is in use"):
        check_ports(plan, 0.2)
    with socket.socket() as closing:
        closing.bind((LOOPBACK, 0))
        closing.listen()
        threading.Timer(0.3, closing.close).start()
        check_ports(replace(plan, port=closing.getsockname()[1]), 20)


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:80"), ("::1", "http://[::1]:80"), ("spine.example", "http://spine.example:80")],  # noqa: S104
)
def test_the_shown_address_can_be_opened_on_this_machine(host: str, url: str) -> None:
    assert address(host, 80) == url
