"""Typeset the paper of a suite: `paper.pdf` from `paper/` and the generated files of a result tree.

The sources and the generated files are staged in a temporary folder, with the paper's generated
part under `generated/`, and compiled there with fixed fonts and a fixed date: equal inputs give
equal bytes wherever the folders lie.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path

from marlin.analysis.schema import OBJECTIVES
from marlin.entry import guard
from marlin.errors import UserError
from marlin.files import write_bytes

SOURCE = Path(__file__).parents[2] / "paper"
GENERATED = ("numbers.json", "tables/*.json", "figures/*.pdf")
# The date inside the PDF: 1 January 2026, so that a rebuild does not differ by its date.
TIMESTAMP = 1_767_225_600
PAGE_PPI = 110


def build(results_dir: Path, pages: Path | None = None, source: Path = SOURCE) -> None:
    """Write `paper.pdf` of a result tree, and its pages as PNG into `pages` if given.

    Raises UserError when tables, figures or the claims' methods are missing, or when the sources
    of the paper do not compile.
    """
    import typst

    if not (source / "main.typ").is_file():
        raise UserError(f"{source} holds no main.typ: run from the repository, or name the folder")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "paper"
        stage(results_dir, source, root)
        compiler = typst.Compiler(root=root, ignore_system_fonts=True)
        main = root / "main.typ"
        try:
            # Tags of elements that a column or page parts do not always nest: text length decides.
            pdf = compiler.compile(main, format="pdf", timestamp=TIMESTAMP, pdf_tags=False)
            images = compiler.compile(main, format="png", ppi=PAGE_PPI) if pages else []
        except typst.TypstError as error:
            raise UserError(f"{source / 'main.typ'} does not compile: {error.message}") from error
    write_bytes(results_dir / "paper.pdf", _one(pdf))
    for number, image in enumerate(images if isinstance(images, list) else [images], start=1):
        write_bytes(Path(pages or ".") / f"page-{number}.png", _one(image))


def _one(document: bytes | list[bytes] | None) -> bytes:
    """A single document out of the compiler's possible answers."""
    if not isinstance(document, bytes):
        raise TypeError("the compiler gave no single document")
    return document


def stage(results_dir: Path, source: Path, root: Path) -> None:
    """Put sources and generated files into the new folder `root`, as main.typ expects them.

    Raises UserError when generated files or the claims' methods are missing.
    """
    shutil.copytree(source, root, ignore=shutil.ignore_patterns("generated"))
    for pattern in GENERATED:
        paths = sorted(results_dir.glob(pattern))
        if not paths:
            raise UserError(
                f"{results_dir} holds no {pattern}: run marlin.analysis.tables and "
                "marlin.analysis.figures for it first"
            )
        for path in paths:
            target = root / "generated" / path.relative_to(results_dir)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    _check_claims(root / "generated")
    bibliography = files("marlin.data").joinpath("sources.bib").read_bytes()
    (root / "generated" / "sources.bib").write_bytes(bibliography)


def _check_claims(generated: Path) -> None:
    """The paper speaks of MARLIN's claims: results without MARLIN have tables but no paper."""
    numbers = json.loads((generated / "numbers.json").read_text(encoding="utf-8"))
    if set(numbers["claims"]) != set(OBJECTIVES):
        raise UserError(
            "the paper needs marlin and its four one-objective variants among the methods of the "
            "suite: add marlin to it, or read the tables alone"
        )


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m marlin.paper RESULTS [--pages DIR]`."""
    parser = argparse.ArgumentParser(description=build.__doc__)
    parser.add_argument("results", type=Path, help="result tree of a suite")
    parser.add_argument("--pages", type=Path, help="also write the pages as PNG into this folder")
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder of main.typ")
    given = parser.parse_args(arguments)
    with guard():
        build(given.results, given.pages, given.source)


if __name__ == "__main__":
    main()
