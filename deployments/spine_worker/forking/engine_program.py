"""The program `python -m prefect.engine`, as which Prefect's process worker starts a run.

Code can see which program it is part of: in `sys.argv`, `sys.orig_argv` and the module `__main__`, from which
`multiprocessing` and `pickle` work, too. A flow that is imported in a fork server sees what it would see in a run.
"""

import importlib.util
import sys
from functools import lru_cache
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

_PROGRAM = "prefect.engine"


def present_as_engine() -> None:
    """Let this process appear as the program. Import the program as a module before."""
    spec, _ = _program()
    sys.argv = [str(spec.origin)]
    sys.orig_argv = [sys.executable, "-m", _PROGRAM]
    main = ModuleType("__main__")
    main.__dict__.update(vars(sys.modules[_PROGRAM]))
    main.__dict__.update(__name__="__main__", __loader__=spec.loader, __spec__=spec)
    # The program binds it when the run has ended.
    main.__dict__.pop("__getattr__", None)
    sys.modules["__main__"] = main


def run_engine() -> None:
    """Execute the program in this process, which appears as the program already."""
    _, code = _program()
    exec(code, vars(sys.modules["__main__"]))  # noqa: S102 (it is Prefect's own)


@lru_cache(maxsize=1)
def _program() -> tuple[ModuleSpec, CodeType]:
    spec = importlib.util.find_spec(_PROGRAM)
    code = spec.loader.get_code(_PROGRAM) if spec and spec.loader else None  # type: ignore[attr-defined]
    if spec is None or code is None:
        raise ImportError(f"{_PROGRAM} has no code.")
    return spec, code
