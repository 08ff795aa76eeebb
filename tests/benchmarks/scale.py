"""How much of everything a pass measures: all of it, or as much as two minutes allow."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """The numbers of a pass."""

    quick: bool
    # Requests in turns with what they are compared with.
    rounds: int
    stored_runs: int
    schedules: int
    runs_of_a_schedule: int
    # Runs, one after the other, of Spine and of Prefect's stock worker.
    runs: int
    stock_runs: int
    # Runs whose requests and processor time are counted.
    counted_runs: int
    counted_stock_runs: int
    # Triggers at once, and those of the pair with Prefect's stock worker.
    bursts: tuple[int, ...]
    paired_burst: int
    runs_in_a_row: int
    idle_seconds: float
    # Reads by 64 clients, and all requests over which memory must not grow.
    reads: int
    requests: int
    alerts: int
    failures: int
    stored_alerts: int
    finra_rows: tuple[int, ...]
    # Megabytes of the files that are fetched.
    large: int
    huge: int
    fetches: int
    parsed_rows: int
    quoted_rows: int


FULL = Scale(
    quick=False,
    rounds=40,
    stored_runs=5_000,
    schedules=1_000,
    runs_of_a_schedule=20,
    runs=40,
    stock_runs=5,
    counted_runs=20,
    counted_stock_runs=5,
    bursts=(50, 200),
    paired_burst=20,
    runs_in_a_row=100,
    idle_seconds=10,
    reads=640,
    requests=100_000,
    alerts=2_000,
    failures=20,
    stored_alerts=1_000_000,
    finra_rows=(1_000_000, 4_000_000),
    large=512,
    huge=1024,
    fetches=5,
    parsed_rows=2_000_000,
    quoted_rows=500_000,
)
QUICK = Scale(
    quick=True,
    rounds=5,
    stored_runs=200,
    schedules=50,
    runs_of_a_schedule=4,
    runs=4,
    stock_runs=1,
    counted_runs=4,
    counted_stock_runs=1,
    bursts=(10,),
    paired_burst=3,
    runs_in_a_row=3,
    idle_seconds=3,
    reads=128,
    requests=10_000,
    alerts=200,
    failures=3,
    stored_alerts=20_000,
    finra_rows=(100_000,),
    large=32,
    huge=64,
    fetches=2,
    parsed_rows=200_000,
    quoted_rows=50_000,
)
