"""The process that reads sources is as closed to Spine's own services as the one that started it."""

from spine.egress.own_services import PREFECT_API, Endpoint, protected

from tests.sources.support import Desk
from tests.support.receivers import receiver


async def test_the_process_that_reads_a_source_does_not_reach_spines_own_services(desk: Desk) -> None:
    with receiver() as service:
        address = {"url": f"http://127.0.0.1:{service.port}/trades.csv"}
        open_name, closed_name = [await desk.register("http", address) for _ in range(2)]
        assert (await desk.fetch(open_name)).status == "SUCCESS"
        reached = len(service.requests)
        with protected([Endpoint("localhost", service.port, PREFECT_API)]):
            refused = await desk.fetch(closed_name)
        assert (refused.status, len(service.requests)) == ("FAILED", reached)
    assert "Prefect's API" in str(refused.error)
