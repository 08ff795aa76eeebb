"""Start Prefect's server in this process; takes the options of `prefect server start`."""

import sys

from spine.imports import importing

with importing():
    from spine.prefect_server.start import start

if __name__ == "__main__":
    start(sys.argv[1:])
