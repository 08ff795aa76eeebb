"""Spine's tests, which a shell that is set up for a running Spine does not change.

Whatever the shell says, compiled modules are kept: hundreds of processes import the same ones.
"""

import os
import sys

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Not in the processes that tests start: these have the settings that their test gives them.
if "pytest" in sys.modules:
    for name in [*os.environ]:
        if name.startswith(("PREFECT_", "SPINE_")) and not name.startswith("SPINE_TEST_"):
            del os.environ[name]
