from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import analysis_results
import pytest
import typst

from marlin import paper
from marlin.analysis import figures, tables
from marlin.analysis.collect import collect
from marlin.errors import UserError

SOURCES = paper.SOURCE
TYPED_NUMBER = re.compile(r"(?<![\w-])\d[\d.,]*")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = analysis_results.write(tmp_path_factory.mktemp("paper") / "results", seeds=2, days=2)
    collect(folder)
    tables.build(folder)
    figures.build(folder)
    return folder


def numbers(results: Path) -> dict:
    return json.loads((results / "numbers.json").read_text(encoding="utf-8"))


def test_two_folders_give_the_same_bytes(results: Path, tmp_path: Path) -> None:
    paper.build(results, pages=tmp_path / "pages")
    first = (results / "paper.pdf").read_bytes()
    assert first.startswith(b"%PDF")
    for kind in ("figures", "tables"):
        (tmp_path / "other" / kind).mkdir(parents=True)
        for path in (results / kind).iterdir():
            (tmp_path / "other" / kind / path.name).write_bytes(path.read_bytes())
    (tmp_path / "other/numbers.json").write_bytes((results / "numbers.json").read_bytes())
    paper.build(tmp_path / "other")
    assert (tmp_path / "other/paper.pdf").read_bytes() == first
    pages = sorted((tmp_path / "pages").glob("page-*.png"))
    assert 4 <= len(pages) <= 12


def test_the_source_compiles_without_a_warning(results: Path, tmp_path: Path) -> None:
    root = tmp_path / "paper"
    paper.stage(results, SOURCES, root)
    compiler = typst.Compiler(root=root, ignore_system_fonts=True)
    _, warnings = compiler.compile_with_warnings(root / "main.typ", format="pdf")
    assert [warning.message for warning in warnings] == []


def test_the_paper_says_where_its_data_came_from(results: Path) -> None:
    assert "not measured years" in numbers(results)["data"]["abstract_sentence"]
    assert "n.data.abstract_sentence" in (SOURCES / "abstract.typ").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["abstract", "introduction", "data", "method", "protocol", "results", "limits"]
)
def test_no_number_is_typed_by_hand(name: str) -> None:
    assert TYPED_NUMBER.findall((SOURCES / f"{name}.typ").read_text(encoding="utf-8")) == []


def test_the_lint_of_numbers_finds_one() -> None:
    assert TYPED_NUMBER.findall("falls by 12.3~% here, and by #n.claimed~%") == ["12.3"]
    assert TYPED_NUMBER.findall("NSGA-II @deb2002 and P90 of #n.nsga2") == []


def test_every_value_that_the_text_quotes_exists(results: Path) -> None:
    values = numbers(results)
    quoted = set()
    for path in SOURCES.glob("*.typ"):
        quoted |= set(re.findall(r"(?<![\w.])n((?:\.\w+)+)", path.read_text(encoding="utf-8")))
    assert len(quoted) > 40
    for keys in quoted:
        node: object = values
        for key in keys.strip(".").split("."):
            if key in {"at", "map"}:
                break
            assert isinstance(node, dict), keys
            assert key in node, keys
            node = node[key]


def test_bibliographies_do_not_share_a_key() -> None:
    own = re.findall(r"@\w+\{([^,]+),", (SOURCES / "refs.bib").read_text(encoding="utf-8"))
    data = files("marlin.data").joinpath("sources.bib").read_text(encoding="utf-8")
    keys = own + re.findall(r"@\w+\{([^,]+),", data)
    assert len(set(keys)) == len(keys)


def test_results_without_tables_or_claims_are_the_users_error(
    results: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"holds no numbers.json"):
        paper.build(tmp_path)
    for pattern in paper.GENERATED:
        for path in results.glob(pattern):
            target = tmp_path / path.relative_to(results)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    (tmp_path / "numbers.json").write_text(json.dumps(numbers(results) | {"claims": {}}))
    with pytest.raises(UserError, match="needs marlin"):
        paper.build(tmp_path)
    with pytest.raises(UserError, match=r"no main.typ"):
        paper.build(results, source=tmp_path)


def test_what_gets_worse_is_told_as_an_increase(results: Path) -> None:
    worse = numbers(results)
    words = worse["claims"]["carbon_kg"]["one_objective"]["against_best"]
    assert words["phrase"].startswith("a reduction")
    balanced = worse["claims"]["carbon_kg"]["balanced"]["against_all"]
    assert balanced["phrase"].startswith("an increase")
    # Claims are held against the one published system of the tree, which all variants beat.
    assert worse["outcome"]["sentences"] == "All claimed reductions are met."
    assert worse["outcome"]["not_reproduced"] == ""
