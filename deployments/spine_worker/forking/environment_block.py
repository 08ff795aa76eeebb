"""The environment of a process as other processes see it.

The kernel shows the environment that a program was started with, whatever the program sets later. `ps e`, and Spine
when it looks for the processes of runs, read `PREFECT__FLOW_RUN_ID` there. A fork server is therefore started with
blanks as its value, and each run overwrites them with its id.
"""

import ctypes

NAME = "PREFECT__FLOW_RUN_ID"
BLANK = " " * 36


class RunIdSlot:
    """The bytes of the run's id in the environment of this process. Create it before anything sets variables."""

    def __init__(self) -> None:
        getenv = ctypes.CDLL(None).getenv
        getenv.restype = ctypes.c_void_p
        address = getenv(NAME.encode())
        self._address: int | None = address if address and ctypes.string_at(address) == BLANK.encode() else None

    def write(self, run_id: str) -> None:
        """Write the id of a run, 36 characters of ASCII."""
        if self._address is not None and len(run_id) == len(BLANK):
            ctypes.memmove(self._address, run_id.encode("ascii"), len(BLANK))
