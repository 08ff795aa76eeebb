"""The environment that others see a process have.

The kernel shows the environment that a program was started with, whatever it sets later. `ps e`, and Spine itself
when it looks for the processes of runs, go by `PREFECT__FLOW_RUN_ID` there; so a fork server is started with blanks
in its place, which a run overwrites with its id.
"""

import ctypes

NAME = "PREFECT__FLOW_RUN_ID"
BLANK = " " * 36


class RunInEnvironment:
    """The place of the run's id in this process' environment; to be found before anything sets variables."""

    def __init__(self) -> None:
        find = ctypes.CDLL(None).getenv
        find.restype = ctypes.c_void_p
        place = find(NAME.encode())
        self._place: int | None = place if place and ctypes.string_at(place) == BLANK.encode() else None

    def set(self, run_id: str) -> None:
        """Show this run's id, 36 characters of ASCII."""
        if self._place is not None and len(run_id) == len(BLANK):
            ctypes.memmove(self._place, run_id.encode("ascii"), len(BLANK))
