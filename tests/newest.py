"""Try the newest versions of all packages, also those that the ranges in pyproject.toml exclude.

`python -m tests.newest` installs them into an environment of its own, runs the tests of the first half there (or those
that its arguments give to pytest), and prints what breaks: first with everything newest, then the failed tests again
with the newest versions that the ranges allow, and with each excluded version alone. Meant for a schedule: the exit
code is 1 if something breaks.
"""

import json
import re
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.environments import install, install_project, new_environment, pytest_with, uv
from tests.support.processes import PROJECT

# Packages that cap others: their newest versions come first, so that no old ones are taken for the sake of others.
FIRST = ("prefect",)
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?\.py(?:::\w+)*(?:\[.*?\])?)(?: - .*)?$", re.MULTILINE)
_LAST_LINES = 15


def requirements_of(project: Path) -> list[Requirement]:
    """What a project requires directly, its dependency groups included."""
    read = tomllib.loads((project / "pyproject.toml").read_text())
    groups = read.get("dependency-groups", {}).values()
    listed = [*read["project"]["dependencies"], *(one for group in groups for one in group)]
    return [Requirement(one) for one in dict.fromkeys(one for one in listed if isinstance(one, str))]


def opened(requirement: Requirement) -> str:
    """A requirement without its upper bound."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    bounds = sorted(str(one) for one in requirement.specifier if one.operator in (">=", ">", "!="))
    return f"{requirement.name}{extras}{','.join(bounds)}"


def failed_tests(output: str) -> list[str]:
    """The tests and files that failed, in pytest's summary."""
    return list(dict.fromkeys(_FAILED.findall(output)))


@dataclass
class Look:
    """A project and an environment in which it can have other versions."""

    project: Path
    python: Path
    requirements: list[Requirement] = field(init=False)

    def __post_init__(self) -> None:
        self.requirements = requirements_of(self.project)

    @cached_property
    def newest(self) -> dict[str, str]:
        """The newest version of each package that the project requires, whatever others allow."""
        names = "\n".join(sorted({one.name for one in self.requirements}))
        options = ("--no-deps", "--no-header", "--no-annotate", "--no-emit-index-url", "--python", str(self.python))
        found = (line.split()[0].split("==") for line in uv("pip", "compile", "-", *options, given=names).splitlines())
        return {canonicalize_name(name): version for name, version in found}

    def excluded(self) -> list[str]:
        """The packages whose newest version is outside the project's range."""
        return [one.name for one in self.requirements if not one.specifier.contains(self.newest_of(one.name))]

    def install(self, without_bounds: Iterable[str]) -> None:
        """Install the newest versions: without upper bounds for these packages, in the ranges for all others."""
        free = set(without_bounds)
        wanted = [opened(one) if one.name in free else str(one) for one in self.requirements]
        wanted += [f"{name}=={self.newest_of(name)}" for name in FIRST if name in free]
        install(self.python, "--upgrade", *wanted)
        install_project(self.python, self.project)

    def installed(self) -> dict[str, str]:
        """The versions that are installed."""
        found = json.loads(uv("pip", "list", "--format", "json", "--python", str(self.python)))
        return {canonicalize_name(one["name"]): one["version"] for one in found}

    def broken(self, tests: Iterable[str]) -> list[str]:
        """What fails of these tests; the end of the output where pytest itself fails."""
        done = pytest_with(self.python, *tests, cwd=self.project)
        if done.returncode == 0:
            return []
        return failed_tests(done.stdout) or (done.stdout + done.stderr).splitlines()[-_LAST_LINES:]

    def newest_of(self, name: str) -> str:
        """The newest version of a package that the project requires."""
        return self.newest[canonicalize_name(name)]


def report_versions(look: Look, excluded: list[str]) -> list[str]:
    """Print which of the excluded versions are installed; return the packages that are outside of their range."""
    installed, outside = look.installed(), []
    for one in look.requirements:
        if one.name not in excluded:
            continue
        version = installed[canonicalize_name(one.name)]
        is_outside = not one.specifier.contains(version)
        outside += [one.name] if is_outside else []
        tried = f"tried {version}" if is_outside else f"kept {version}, because another package allows no more"
        print(f"{one.name} {look.newest_of(one.name)} is outside of {one.specifier}: {tried}", flush=True)
    return outside


def look_at(look: Look, tests: list[str]) -> bool:
    """Run these tests with everything newest, and print what breaks; return whether anything does."""
    excluded = look.excluded()
    look.install(excluded)
    outside = report_versions(look, excluded)
    broken = look.broken(tests)
    _report("everything newest", broken)
    if broken:
        again = [one for one in broken if ".py" in one] or tests
        for alone in ([], *([one] for one in outside)):
            look.install(alone)
            what = f"only {alone[0]} outside of its range" if alone else "the newest versions in the ranges"
            _report(what, look.broken(again))
    return bool(broken)


def _report(versions: str, broken: list[str]) -> None:
    found = "\n  ".join((f"{len(broken)} break:", *broken)) if broken else "nothing breaks."
    print(f"With {versions} {found}", flush=True)


def main(tests: list[str], project: Path = PROJECT) -> int:
    """Look at a project; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="spine-newest-") as folder:
        return int(look_at(Look(project, new_environment(Path(folder) / "environment")), tests))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
