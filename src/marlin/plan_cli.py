"""`marlin plan`: list the cells of a suite, show one, and verify a result tree against them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from marlin import compose, plan
from marlin.entry import guard
from marlin.errors import UserError
from marlin.files import write_json


def main() -> None:
    """Command line of `marlin plan`."""
    given = _parser().parse_args()
    with guard():
        chosen = plan.load(given.suite, given.data)
        results = given.results or chosen.results
        if given.action == "list":
            _list(chosen)
        elif given.action == "show":
            cell = chosen.cell(given.cell)
            print(f"# {cell.name}: {' '.join(cell.overrides)}\n# fingerprint {cell.fingerprint}")
            print(compose.to_yaml(compose.compose(cell.overrides)), end="")
        elif given.action == "set-aside":
            for path in plan.set_aside(chosen, results):
                print(f"not in suite {chosen.suite}, set aside: {path}")
        else:
            verify(chosen, results, given.manifest)


def verify(chosen: plan.Plan, results: Path, write_manifest: bool = False) -> None:
    """Compare a result tree with the plan; with `write_manifest`, write it when all fits.

    Raises:
        UserError: results are missing or false; each is named on standard error before.
    """
    found = list(plan.problems(chosen, results))
    for problem in found:
        print(f"false: {problem}", file=sys.stderr)
    if found:
        raise UserError(
            f"{len(found)} of the results in {results} cannot be trusted, the first: {found[0]}; "
            "delete what is named and run the suite again"
        )
    manifest = plan.manifest(chosen, results)
    if write_manifest:
        write_json(results / plan.MANIFEST, manifest)
    print(f"verified: {chosen.runs} runs, {len(manifest['files'])} files in {results}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="marlin plan", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    for action, text in (
        ("list", "print every cell"),
        ("show", "print the resolved settings of a cell"),
        ("verify", "compare results with the plan and with what each stage sealed"),
        ("set-aside", "move results that the suite no longer names to set-aside/"),
    ):
        child = actions.add_parser(action, help=text, description=text)
        child.add_argument("suite", help="a file of conf/suite")
        if action == "show":
            child.add_argument("cell", help="scenario/method/ablation")
        child.add_argument("--data", default="embedded", help="embedded or measured")
        child.add_argument("--results", type=Path, help="result tree (default: by suite and data)")
        child.set_defaults(manifest=False)
        if action == "verify":
            child.add_argument(
                "--manifest", action="store_true", help="write manifest.json when all fits"
            )
    return parser


def _list(chosen: plan.Plan) -> None:
    width = max(len(cell.name) for cell in chosen.cells)
    for cell in chosen.cells:
        print(f"{cell.name:{width}}  {cell.fingerprint[:12]}  {' '.join(cell.overrides)}")
    print(f"{len(chosen.cells)} cells, {chosen.runs} runs, results in {chosen.results}")


if __name__ == "__main__":
    main()
