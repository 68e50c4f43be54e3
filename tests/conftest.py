"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from marlin.config import RunConfig

CONF = Path(__file__).parents[1] / "conf"
SECTIONS = {
    "scenario": "fortnight",
    "fleet": "core12",
    "workload": "azure",
    "signals": "embedded",
    "physics": "default",
    "serving": "vllm",
    "method": "round_robin",
    "budget": "tiny",
    "tracking": "none",
}


def read_section(group: str, option: str) -> dict:
    return yaml.safe_load((CONF / group / f"{option}.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def tiny_run() -> RunConfig:
    """The smallest run of the configuration, on embedded data."""
    sections = {group: read_section(group, option) for group, option in SECTIONS.items()}
    return RunConfig(**sections, ablation="none", seed=0)


@pytest.fixture(scope="session")
def mirror() -> str:
    """The measured data: a folder or http base URL from MARLIN_MIRROR."""
    base = os.environ.get("MARLIN_MIRROR")
    if not base:
        pytest.skip("MARLIN_MIRROR is not set: no measured data")
    if not base.startswith(("http://", "https://")) and not Path(base).is_dir():
        pytest.skip(f"MARLIN_MIRROR={base} is not a folder")
    return base


@pytest.fixture(scope="session")
def measured_cache(mirror: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with every file that the mirror has, fetched once."""
    from marlin.data.fetch import fetch
    from marlin.data.registry import sources

    cache = tmp_path_factory.mktemp("cache")
    there = [name for name, item in sources().items() if item.in_mirror]
    fetch(there, "mirror", mirror, cache, progress=False)
    return cache
