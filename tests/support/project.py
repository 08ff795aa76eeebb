"""The project's own files, as a clone of it has them."""

import subprocess

from tests.support.processes import PROJECT


def committed_files() -> list[str]:
    """Every file that is in Git or would be with `git add .`, as a path from the project's root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.splitlines() if (PROJECT / name).is_file()]
