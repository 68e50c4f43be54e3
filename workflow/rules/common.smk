import os
import re
import shlex
from pathlib import Path

from marlin import compose, plan as planning, reproduce, sources

PLAN = planning.load(**reproduce.choices(config))
CELLS = {cell.name: cell for cell in PLAN.cells}
# What a rule writes cannot differ in number, so cells without chance, of one seed, have their own.
SEEDS = max((cell.seeds for cell in PLAN.cells), key=len)
ONE_SEED = [name for name, cell in CELLS.items() if len(cell.seeds) < len(SEEDS)]
MANY_SEEDS = [name for name in CELLS if name not in ONE_SEED]
FIRST_PRODUCTS = (
    PLAN.scenarios[PLAN.cells[0].scenario_file],
    PLAN.profiles[PLAN.cells[0].profiles_file],
)
TABLES = (
    "main",
    "latency",
    "scores",
    "references",
    "leaders",
    "claims",
    "reductions",
    "improvements",
    "fronts",
    "decisions",
    "regimes",
    "agreement",
    "ablations",
    "calibration",
    "profiles",
    "power",
    "fluid",
    "sources",
)
ABLATED = any(cell.ablation != "none" for cell in PLAN.cells)
FIGURES = ("pareto", "day", "learning", "calibration", "power") + (
    "ablations",
) * ABLATED

reproduce.set_environment(config.get("mirror"))


pathvars:
    results=PLAN.results.as_posix(),
    runs=(PLAN.results / planning.RUNS).as_posix(),


wildcard_constraints:
    cell=r"[\w.-]+/[\w.-]+/[\w.-]+",
    stem=r"[\w.-]+",


def one_of(names):
    """Pattern of a wildcard that takes these values alone."""
    return "|".join(map(re.escape, names)) or r"(?!)"


def code(stage, *modules):
    """Source files that a stage imports, by their path from here."""
    return [os.path.relpath(path) for path in sources.closure(stage, *modules)]


def cell_of(wildcards):
    """The cell of a job; of a file of bounds, one of the cells that share it."""
    if "stem" in wildcards.keys():
        return next(
            cell for cell in CELLS.values() if cell.bounds_file == wildcards.stem
        )
    return CELLS[wildcards.cell]


def of_all_cells(pattern):
    """A path with {cell} and {seed}, for every run of the plan."""
    return [
        path
        for name, cell in CELLS.items()
        for path in expand(pattern, cell=name, seed=cell.seeds)
    ]


def of_seeds(seeds, name):
    """A file of the run folders of one cell."""
    return [f"<runs>/{{cell}}/seed-{seed}/{name}" for seed in seeds]


def of_runs(name):
    """The same as an input: of the seeds that the cell of a job has."""
    return lambda wildcards: [
        f"{folder}/{name}" for folder in run_folders_of(wildcards)
    ]


def run_folder_of(wildcards):
    return (PLAN.results / planning.RUNS / cell_of(wildcards).name).as_posix()


def run_folders_of(wildcards):
    return [folder.as_posix() for folder in PLAN.folders(cell_of(wildcards))]


def fetched(wildcards):
    return "<results>/data/fetched.json" if PLAN.data == "measured" else []


def scenario_of(wildcards):
    # Big: its digest, a small file, tells whether it changed.
    return ancient(f"<results>/data/{cell_of(wildcards).scenario_file}.nc")


def scenario_digest_of(wildcards):
    return f"<results>/data/{cell_of(wildcards).scenario_file}.nc.sha256"


def profiles_of(wildcards):
    return f"<results>/serving/{cell_of(wildcards).profiles_file}.parquet"


def training_code_of(wildcards):
    return code("train", cell_of(wildcards).module)


def evaluation_code_of(wildcards):
    return code("evaluate", cell_of(wildcards).module)


def mirror_option():
    """`--mirror` of a run on measured data that come from a mirror, as typed in a shell."""
    mirror = os.environ.get("MARLIN_MIRROR")
    return (
        shlex.join(["--mirror", mirror]) if mirror and PLAN.data == "measured" else ""
    )


def product_settings(product):
    """Overrides of a product as they are typed in a shell."""
    return shlex.join(product.overrides)


BARGAINED = [
    folder.as_posix()
    for cell in CELLS.values()
    if (cell.method, cell.ablation) == ("marlin_nash", "none")
    for folder in PLAN.folders(cell)
]
BOUND_FILES = expand("<results>/bounds/{stem}.parquet", stem=PLAN.bounds)
RUN_FILES = [
    *expand("<results>/data/{stem}.nc", stem=PLAN.scenarios),
    *expand("<results>/serving/{stem}.parquet", stem=PLAN.profiles),
    *of_all_cells("<runs>/{cell}/seed-{seed}/run.json"),
    *of_all_cells("<runs>/{cell}/seed-{seed}/evaluation.json"),
    *of_all_cells("<runs>/{cell}/seed-{seed}/episodes.parquet"),
    *of_all_cells("<runs>/{cell}/seed-{seed}/epochs.parquet"),
    *of_all_cells("<runs>/{cell}/seed-{seed}/learning.parquet"),
    *of_all_cells("<runs>/{cell}/seed-{seed}/policy.npz"),
    *of_all_cells("<runs>/{cell}/seed-{seed}/resolved.yaml"),
    *of_all_cells("<runs>/{cell}/seed-{seed}/evaluated.yaml"),
]
