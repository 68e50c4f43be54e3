"""The `marlin` command: one subcommand a stage, each imported only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from marlin import __version__
from marlin.entry import guard
from marlin.errors import UserError

MODULES = {
    "fetch": "marlin.fetch_cli",
    "validate": "marlin.validate_cli",
    "train": "marlin.train",
    "evaluate": "marlin.evaluate",
    "replay": "marlin.replay",
    "plan": "marlin.plan_cli",
    "reproduce": "marlin.reproduce",
    "doctor": "marlin.doctor",
}
USAGE = """\
usage: marlin COMMAND ...

  fetch       bring the measured data from a mirror or the internet
  validate    check a trace or a fleet of one's own, and draw what was read
  prepare     turn data into one scenario file
  calibrate   turn measured kernel tables into serving profiles
  train       run methods by hand: marlin train -m method=marlin,nsga2 seed=0,1
  evaluate    score trained runs on the test days: marlin evaluate RUN_FOLDER...
  replay      judge a plan request by request: marlin replay --plan PLAN --trace TRACE
  plan        list, show and verify the cells of a suite
  reproduce   run a suite from data to paper, or go on where it stopped
  doctor      say what this machine has and what is missing

`marlin COMMAND --help` says more; settings are in conf/, and any of them is an argument."""


def main(arguments: list[str] | None = None) -> None:
    """Run one subcommand; a user's mistake ends in one sentence and exit status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with guard():
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(USAGE)
            return
        command, *rest = arguments
        if command == "--version":
            print(__version__)
        elif command == "prepare":
            _prepare(rest)
        elif command == "calibrate":
            _calibrate(rest)
        elif command in MODULES:
            sys.argv = [f"marlin {command}", *rest]
            importlib.import_module(MODULES[command]).main()
        else:
            from marlin.compose import nearest

            near = nearest(command, [*MODULES, "prepare", "calibrate"])
            raise UserError(f"there is no command {command!r}: the nearest is `marlin {near}`")


def _stage_parser(command: str, default: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"marlin {command}",
        description="Settings: Hydra overrides such as fleet=core12",
    )
    parser.add_argument("overrides", nargs="*", metavar="SETTING=VALUE")
    parser.add_argument("--output", type=Path, default=Path(default), help="default: %(default)s")
    return parser


def _prepare(arguments: list[str]) -> None:
    parser = _stage_parser("prepare", "results/adhoc/scenario.nc")
    given = parser.parse_args(arguments)
    from marlin import compose, inputs

    inputs.make_scenario(compose.compose(given.overrides), given.output)
    print(f"scenario: {given.output}")


def _calibrate(arguments: list[str]) -> None:
    parser = _stage_parser("calibrate", "results/adhoc/profiles.parquet")
    parser.add_argument(
        "--all", action="store_true", help="every profile that the tables hold, not the fleet's"
    )
    parser.add_argument(
        "--no-figure", action="store_true", help="do not draw predicted against measured latency"
    )
    given = parser.parse_args(arguments)
    from marlin import compose, inputs

    if given.all and given.overrides:
        raise UserError("marlin calibrate --all takes no settings: it covers every profile")
    if given.all:
        print(inputs.make_all_profiles(given.output))
    else:
        print(inputs.make_profiles(compose.compose(given.overrides), given.output))
    print(f"profiles: {given.output}")
    if not given.no_figure:
        print(f"figure: {inputs.draw_silicon(given.output)}")


if __name__ == "__main__":
    main()
