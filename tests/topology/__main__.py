"""`python -m tests.topology up`: the topology of `deployments/` on this machine, until Ctrl-C."""

import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.topology.running import topology


def main(arguments: list[str]) -> None:
    """Bring the topology up, say where it is, and wait for a signal."""
    if arguments != ["up"]:
        sys.exit(f"{__doc__}")
    with tempfile.TemporaryDirectory(prefix="spine-topology-") as folder, topology(Path(folder)) as running:
        print(f"Spine's API    {running.api_url}")
        print(f"Prefect's UI   {running.prefect_url}")
        print(f"Admin key      {running.command('spine', 'keys', 'create', 'admin', '--scope', 'admin').strip()}")
        print(f"Logs           {folder}")
        for member in running.members.values():
            if member.process is not None and member.process.poll() is None:
                print(f"  {member.name:<18} pid {member.process.pid}")
        print("Ctrl-C stops everything.", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main(sys.argv[1:])
