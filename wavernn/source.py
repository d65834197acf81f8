"""Which source tree runs."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit(file: Path) -> str | None:
    """The commit of the source tree that `file` is of, "-dirty" if it was changed; else None."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        # an installed package may lie within a repository that isn't its own
        git("ls-files", "--error-unmatch", file.name)
        return git("describe", "--always", "--dirty", "--abbrev=40")
    except (OSError, subprocess.SubprocessError):
        return None
