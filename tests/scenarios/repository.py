"""A real git repository for tests."""

import subprocess
from pathlib import Path

from pytest_defuse.scenarios.store import Store
from tests.scenarios.planting import STORE


class Repository:
    """A repository with an opened store, committed on the branch ``main``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "fixtures" / "digits")
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch", "main")
        (folder / "pytest.ini").write_text("[pytest]\n")
        self.store.open_for(STORE)
        self.commit("The store")

    def git(self, *arguments: str) -> str:
        """Run git; its output."""
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(self.folder), *identity, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def commit(self, message: str = "Change") -> str:
        """Commit everything; the commit's hash."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD").strip()

    def branch(self, name: str, start: str = "main") -> None:
        """Go to a new branch."""
        self.git("checkout", "--quiet", "-b", name, start)

    def merge(self, *names: str) -> None:
        """Merge branches into main; a conflict fails the test."""
        self.git("checkout", "--quiet", "main")
        for name in names:
            self.git("merge", "--quiet", "--no-edit", name)
