"""Predicted against measured GPU power and energy per token, by configuration.

    python -m marlin.serving.power_validation [--mirror FOLDER_OR_URL] --output TABLE.csv

With a mirror that has ML.ENERGY Leaderboard v3.0 the constants are fitted and the table is made
anew; without one the table that the package carries is written. It holds means and errors of a
configuration (model, GPU, number of GPUs, task, precision), not the source's runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from marlin import files
from marlin.entry import guard
from marlin.serving import fit, hardware, power_data, power_fit

TABLE = Path(__file__).with_name("power_validation.csv")
KEYS = [*power_data.CONFIGURATION, "precision"]
DIGITS = 4
# Models of the benchmark that have kernel tables, hence a predicted token rate.
PROFILED = {
    "Llama 3.1 8B": "llama-3.1-8b",
    "Llama 3.1 70B": "llama-3.1-70b",
    "Llama 3.1 405B": "llama-3.1-405b",
    "Qwen3 32B": "qwen3-32b",
}


def predicted_rate(runs: pd.DataFrame) -> np.ndarray:
    """Output tokens/s, [N], of runs of one configuration, from its serving profile alone.

    Each of B running sequences gets a token a step, and a share B / O of a prompt joins that step:
    `rate = B / (t_dec(B) + B (t_pre - d0) / O)`, the fluid model's steady state.
    """
    first = runs.iloc[0]
    profile = fit.profile(
        PROFILED[first.model], first.gpu, int(first.gpus), "vllm", first.precision
    )
    batch, output = runs.batch.to_numpy(), runs.output_tokens.to_numpy()
    context = power_data.mean_context(first.task, output)
    extra_s = profile.prefill_s(power_data.PROMPT_TOKENS[first.task]) - profile.decode_d0_s
    step_s = profile.decode_step_s(batch, context) + batch * np.maximum(extra_s, 0.0) / output
    return batch / step_s


def predict(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` with held-out predictions: `predicted_w`, and `predicted_j` where a profile exists.

    `predicted_w` takes the measured token rate. `predicted_j`, GPU joules per output token of the
    whole replica, takes nothing measured but batch and lengths: rate and power both come from the
    models.
    """
    runs = runs.assign(predicted_w=power_fit.held_out(runs), predicted_j=np.nan)
    runs["measured_j"] = runs.power_w * runs.gpus / runs.tokens_per_s
    profiled = runs[runs.model.isin(PROFILED)]
    for _, own in profiled.groupby(KEYS):
        gpu = hardware.gpu(own.gpu.iloc[0])
        others = runs[(runs.gpu == gpu.name) & ~runs.moe & (runs.model != own.model.iloc[0])]
        own = power_data.work(own.assign(tokens_per_s=predicted_rate(own)))
        power = power_fit.predict(own, gpu, *power_fit.fit(others, gpu))
        runs.loc[own.index, "predicted_j"] = power * own.gpus / own.tokens_per_s
    return runs


def by_configuration(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a configuration: mean W, geometric mean J, median and P90 of the absolute errors.

    Errors are relative to the measured value; `*_bias` is the signed median.
    """
    rows = []
    for _, own in runs.groupby(KEYS):
        row = {key: own[key].iloc[0] for key in KEYS}
        row |= {"moe": bool(own.moe.iloc[0]), "runs": len(own)}
        row |= {"batch_low": own.batch_limit.min(), "batch_high": own.batch_limit.max()}
        row |= {"measured_w": own.power_w.mean(), "predicted_w": own.predicted_w.mean()}
        row |= _errors("w", own.predicted_w / own.power_w - 1.0)
        row |= {name: np.exp(np.log(own[name]).mean()) for name in ("measured_j", "predicted_j")}
        row |= _errors("j", own.predicted_j / own.measured_j - 1.0)
        rows.append(row)
    return pd.DataFrame(rows)


def _errors(name: str, relative: pd.Series) -> dict[str, float]:
    return {
        f"{name}_median": relative.abs().median(),
        f"{name}_p90": relative.abs().quantile(0.9),
        f"{name}_bias": relative.median(),
    }


def constants(runs: pd.DataFrame) -> pd.DataFrame:
    """By GPU: fitted a and b, the same with a free intercept, and held-out errors of dense runs."""
    rows = []
    for name, own in runs[~runs.moe].groupby("gpu"):
        gpu = hardware.gpu(str(name))
        a, b = power_fit.fit(own, gpu)
        intercept, free_a, free_b = power_fit.fit_with_intercept(own, gpu)
        short, long = (
            power_fit.fit(power_data.work(own, tokens / 634.0), gpu)[1] for tokens in (300, 900)
        )
        rows.append(
            {
                "gpu": name, "runs": len(own), "a": a, "b": b,
                "b_prompts_of_300": short, "b_prompts_of_900": long,
                "free_intercept_w": intercept, "free_a": free_a, "free_b": free_b,
                **_errors("w", own.predicted_w / own.power_w - 1.0),
                **_errors("j", own.predicted_j / own.measured_j - 1.0),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with numbers to `DIGITS` significant digits, so that it is written alike anywhere."""
    out = table.copy()
    for name in out.select_dtypes("float"):
        out[name] = [float(f"{value:.{DIGITS}g}") for value in out[name]]
    return out


def table(mirror: str | None) -> pd.DataFrame:
    """The validation table: from the mirror if there is one, else the package's."""
    if mirror is None:
        return pd.read_csv(TABLE)
    return rounded(by_configuration(predict(power_data.read(mirror))))


def error_table(validation: pd.DataFrame) -> pd.DataFrame:
    """Held-out errors of W and J in the long form of `calibrate.error_table`, a row a GPU.

    Over configurations of dense models; points are runs.
    """
    rows = []
    for gpu, part in validation[~validation.moe].groupby("gpu"):
        for quantity, name in (("W", "w_median"), ("J/token", "j_median")):
            kept = part[part[name].notna()]
            median, tail = kept[name].median(), kept[name].quantile(0.9)
            rows.append(
                (f"{gpu}, dense models, ML.ENERGY", quantity, kept.runs.sum(), median, tail)
            )
    return pd.DataFrame(rows, columns=["profile", "quantity", "points", "median", "p90"])


def main() -> None:
    """Command line of the power validation."""
    parser = argparse.ArgumentParser(description="Predicted against measured GPU power.")
    parser.add_argument("--mirror", help="folder or http base URL of the measured data")
    parser.add_argument("--output", type=Path, default=Path("results/adhoc/power.csv"))
    given = parser.parse_args()
    with guard():
        if given.mirror is None:
            print(f"no mirror: {TABLE.name} of the package")
        else:
            runs = predict(power_data.read(given.mirror))
            print(constants(runs).round(3).T.to_string(header=False))
        made = table(given.mirror)
        print(made.round(3).to_string(index=False))
        files.write_text(given.output, made.to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    main()
