"""Virtual environments of their own, with other packages than those of the tests. uv makes them in seconds."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.processes import PROJECT

LOCKS = PROJECT / "deployments"


def uv(*arguments: str, given: str = "") -> str:
    """Run uv with an input; return its output."""
    command = [sys.executable, "-m", "uv", "--quiet", *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def new_environment(folder: Path) -> Path:
    """Make a virtual environment, with pip, which some tests need; return its interpreter."""
    uv("venv", "--seed", "--python", sys.executable, str(folder))
    return folder / "bin" / "python"


def install(python: Path, *arguments: str) -> None:
    """Install packages into an environment."""
    # Bytecode that is written later would change the directory of the packages, which workers watch.
    uv("pip", "install", "--compile-bytecode", "--python", str(python), *arguments)


def install_locked(python: Path, lock: str) -> None:
    """Install the packages of a lock file, and nothing else."""
    install(python, "--no-deps", "--require-hashes", "-r", str(LOCKS / lock))


def install_project(python: Path, project: Path = PROJECT) -> None:
    """Install a project as it is in its folder, without its dependencies."""
    install(python, "--no-deps", "--editable", str(project))


def pytest_with(python: Path, *arguments: str, cwd: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    """Run pytest in an environment, also from within a test."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [str(python), "-m", "pytest", *arguments], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
