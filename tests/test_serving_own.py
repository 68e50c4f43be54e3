"""A GPU and a model of the user's own: settings, a CSV of timings, and what goes wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from marlin.config import ServingConfig
from marlin.errors import UserError
from marlin.serving import calibrate, hardware, measurements, models, silicon

CARD = {
    "memory_bytes": 96e9, "bandwidth_tb_per_s": 4.0, "compute_tflop_per_s": 800, "tdp_w": 600,
    "context_w": 100, "deep_idle_w": 50, "w_per_tb_per_s": 120, "w_per_tflop_per_s": 0.9,
    "power_source": "made up",
}  # fmt: skip
TRUTH = {"p": (0.008, 2e-5, 1e-9), "d": (0.005, 2e-5, 3e-8)}
SIZES = {
    "layers": 32, "hidden": 4096, "intermediate": 11008, "heads": 32, "kv_heads": 8,
    "head_dim": 128, "vocabulary": 32000,
}  # fmt: skip


def timings(path: Path) -> Path:
    """Prefills, decode steps and mixed steps of an invented GPU."""
    prefill, decode = TRUTH["p"], TRUTH["d"]
    rows = []
    for prompt in (0, 128, 512, 2048, 8192):
        for batch in (0, 1, 16, 64):
            for context in (512, 4096):
                if prompt == batch == 0:
                    continue
                pre = prefill[0] + prefill[1] * prompt + prefill[2] * prompt**2
                dec = decode[0] + decode[1] * batch + decode[2] * batch * context
                both = pre + dec - decode[0]
                seconds = both if prompt and batch else pre if prompt else dec
                rows.append(("own-7b", 1, batch, context, prompt, seconds))
    pd.DataFrame(rows, columns=measurements.COLUMNS).to_csv(path, index=False)
    return path


def serving(path: Path, **gpu: object) -> ServingConfig:
    return ServingConfig.model_validate(
        {
            "name": "own", "backend": "vllm", "max_batch": 64, "utilisation_ceiling": 0.85,
            "patience_s": 300, "off_state": "off",
            "models": [{"name": "own-7b", "tp": {"N1": 1, "H100": 1}, "card": SIZES}],
            "gpus": {"N1": CARD | {"measurements": str(path)} | gpu},
        }
    )  # fmt: skip


def test_an_invented_gpu_and_model(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(silicon, "compare", lambda: pd.DataFrame())
    table, _ = calibrate.calibrate(serving(timings(tmp_path / "n1.csv")), ["N1", "H100"])
    other, own = table.to_dict("records")
    found = [own[name] for name in table.columns if name[:9] in ("prefill_p", "decode_d0")]
    assert own["gpu"] == "N1"
    assert found == pytest.approx([*TRUTH["p"], TRUTH["d"][0]], rel=1e-6)
    assert own["decode_d2_s_per_kv_token"] == pytest.approx(TRUTH["d"][2], rel=1e-6)
    assert own["source"] == "measurements in n1.csv"
    assert own["gpu_tdp_w"] == 600
    # 0.9 x 96 GB less the reserve and the weights, over 128 KiB a token.
    weights = 2 * models.Model("own-7b", "", **SIZES).parameters
    room = 0.9 * 96e9 - hardware.RESERVE_BYTES - weights
    assert own["kv_capacity_tokens"] == room // (128 * 1024)
    # On a known GPU the model of sizes alone takes the package's tables.
    assert (other["gpu"], other["engine_version"]) == ("H100", "0.24.0")
    assert np.isfinite(other["decode_d0_s"])


def test_bad_timings_name_the_line(tmp_path: Path):
    path = timings(tmp_path / "n1.csv")
    gpu, model = hardware.gpu("H100"), models.model("llama-3.1-8b")
    with pytest.raises(UserError, match="has 0 and 0; the file has own-7b on 1"):
        measurements.profile(path, model, gpu, 1, "vllm")
    table = pd.read_csv(path)
    table.loc[3, "seconds"] = -1
    table.to_csv(path, index=False)
    with pytest.raises(UserError, match="line 5"):
        measurements.read(path)
    table.drop(columns="seconds").to_csv(path, index=False)
    with pytest.raises(UserError, match="column 'seconds' is missing"):
        measurements.read(path)
    with pytest.raises(UserError, match="do not exist"):
        measurements.read(tmp_path / "none.csv")


def test_a_gpu_needs_times_and_a_known_name(tmp_path: Path):
    with pytest.raises(ValidationError, match="either system or measurements"):
        serving(tmp_path / "n1.csv", system="h100_sxm")
    with pytest.raises(UserError, match="unknown GPU 'TPU'; known: A100, H100"):
        calibrate.calibrate(serving(tmp_path / "n1.csv"), ["TPU"])


def test_the_printed_table_takes_other_tables():
    mine = pd.DataFrame([("8b H100", "TPOT", 9, 0.041, 0.125)],
                        columns=["profile", "quantity", "points", "median", "p90"])  # fmt: skip
    text = calibrate.printed([mine, mine.assign(quantity="W", median=0.05)])
    assert text.splitlines()[1].split() == ["8b", "H100", "TPOT", "9", "4.1", "%", "12.5", "%"]
    assert text.splitlines()[2].split()[2] == "W"
