"""A copy of the repository in a folder of its own, and its commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("Snakefile", "workflow", "profiles", "conf", "src", "paper", "environment.yml")


class Copy:
    """A copy of the repository, and its workflow's commands."""

    def __init__(self, folder, suite, origin=ROOT):
        self.folder, self.suite = folder, suite["name"]
        for name in COPIED:
            source = origin / name
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, folder / name)
        (folder / "conf" / "suite" / f"{self.suite}.yaml").write_text(json.dumps(suite))
        unset = {"MARLIN_CONF", "MARLIN_CACHE", "MARLIN_MIRROR", "SNAKEMAKE_PROFILE"}
        self.environment = {key: os.environ[key] for key in os.environ.keys() - unset}
        self.environment["PYTHONPATH"] = str(folder / "src")

    def run(self, *command):
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True
        )

    def snakemake(self, *arguments):
        return self.run(sys.executable, "-m", "snakemake", "--nolock", *arguments)

    def marlin(self, *arguments):
        return self.run(sys.executable, "-m", "marlin.cli", *arguments)

    def planned(self, *arguments):
        """What a dry run would do: names of rules, with the method where there is one."""
        done = self.snakemake("-n", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        jobs = set()
        for block in re.split(r"\n(?=(?:local)?rule \w+:)", done.stdout + done.stderr)[1:]:
            rule = re.match(r"(?:local)?rule (\w+):", block)
            assert rule
            # A cell of one seed has a rule of its own, which does the same.
            stage = rule[1].removesuffix("_once")
            method = re.search(r"wildcards: .*cell=[\w.-]+/([\w.-]+)/", block)
            jobs.add(f"{stage} {method[1]}" if method else stage)
        return jobs - {"all", "runs"}

    @contextmanager
    def edited(self, name, old, new):
        """A file with a change in it; the change is reverted afterwards."""
        with self.restored(name):
            path = self.folder / name
            before = path.read_text()
            assert old in before
            path.write_text(before.replace(old, new, 1))
            yield

    @contextmanager
    def restored(self, *names, with_times=False):
        """Files that get their content back, and the time of their last change if asked to."""
        paths = [self.folder / name for name in names]
        before = [(path.read_bytes(), path.stat()) for path in paths]
        try:
            yield
        finally:
            for path, (content, status) in zip(paths, before, strict=True):
                path.write_bytes(content)
                if with_times:
                    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
