"""Seal files: `python -m marlin.seal RESULTS/seals/STAGE.sha256 FILE...`.

Each stage of the pipeline ends by writing down the SHA-256 of what it made. A result that is
edited later no longer fits its seal, and `marlin plan verify` names it. The lines are those of
`sha256sum`, with paths below RESULTS: `cd RESULTS && sha256sum --check --quiet seals/*.sha256`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from marlin.entry import guard
from marlin.errors import UserError
from marlin.files import sha256, write_text

FOLDER = "seals"


def write(seal: Path, files: list[Path]) -> None:
    """Write the digests of `files`, sorted by path.

    Raises:
        UserError: a file is absent, or lies outside the result tree of the seal.
    """
    root = seal.parent
    while root.name != FOLDER:
        if root == root.parent:
            raise UserError(f"{seal} is not in a folder called {FOLDER}: seals of a suite are")
        root = root.parent
    root = root.parent.resolve()
    lines = []
    for path in sorted(files):
        if not path.is_file():
            raise UserError(f"{path} is missing: the stage that makes it did not finish")
        lines.append(f"{sha256(path)}  {path.resolve().relative_to(root).as_posix()}\n")
    write_text(seal, "".join(lines))


def read(root: Path) -> dict[str, str]:
    """All sealed paths below `root` with their SHA-256."""
    sealed = {}
    for seal in sorted((root / FOLDER).rglob("*.sha256")):
        for line in seal.read_text(encoding="utf-8").splitlines():
            digest, _, name = line.partition("  ")
            sealed[name] = digest
    return sealed


def main() -> None:
    """Command line: SEAL FILE..."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seal", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    given = parser.parse_args()
    with guard():
        write(given.seal, given.files)


if __name__ == "__main__":
    main()
