"""Spine's tests. Whatever the shell says, compiled modules are kept: hundreds of processes import the same ones."""

import os
import sys

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
