"""A run's world, its epochs and what a scheduler may know of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from marlin import compose, inputs
from marlin.config import RunConfig
from marlin.errors import UserError
from marlin.fleet.contract import Inputs, State, row
from marlin.fleet.faults import observed, stale_sites
from marlin.fleet.forecast import contiguous
from marlin.fleet.outlook import Outlook
from marlin.fleet.predictors import forecast_series
from marlin.fleet.world import TEST, Epochs, World, build_epochs, build_world
from marlin.schedulers.base import Budget, Observation, Scheduler

FORECAST = {  # and whether injected noise applies: the weather is forecast well by all
    "arrival_rate_per_s": True,
    "carbon_g_per_kwh": True,
    "price_usd_per_mwh": True,
    "pue": False,
    "wue_l_per_kwh": False,
}
KNOWN_AHEAD = ("ewif_l_per_kwh", "aware_m3_per_m3")


@dataclass(frozen=True)
class Task:
    """What a run is about: the fleet, the truth and the causal forecast of every epoch."""

    run: RunConfig
    world: World
    epochs: Epochs
    forecast: Inputs  # [T, ...] each epoch as it was predicted one epoch before

    def days(self, split: int) -> list[int]:
        """First epochs of the whole days of a split that have a week of history behind them."""
        per_day = self.world.epochs_per_day
        history = 7 * per_day
        starts = np.arange(0, len(self.epochs.time) - per_day + 1, per_day)
        same = self.epochs.split[starts] == split
        return [int(t) for t in starts[same] if t >= history]

    def test_days(self) -> list[int]:
        """First epochs of the test days, evenly spaced over the test period."""
        days = self.days(TEST)
        wanted = self.run.scenario.test_days
        if wanted > len(days):
            raise UserError(
                f"scenario {self.run.scenario.name} has {len(days)} test days but "
                f"scenario.test_days is {wanted}: lower it or lengthen the test period"
            )
        # Midpoints of equal stretches: a day of every season, none at the very edge.
        positions = (np.arange(wanted) + 0.5) * len(days) / wanted
        return [days[int(p)] for p in positions]

    def day_name(self, start: int) -> str:
        """ISO date of a day by its first epoch."""
        return str(self.epochs.time[start].astype("datetime64[D]"))

    def truth(self, epochs: np.ndarray) -> Inputs:
        """Realised inputs of the given epochs, as a batch."""
        return row(self.epochs.inputs, epochs)

    def forecasts(self, epochs: np.ndarray) -> Inputs:
        """Forecast inputs of the given epochs, as a batch."""
        return row(self.forecast, epochs)

    def observation(self, epoch: int, state: State, on_truth: bool = False) -> Observation:
        """What a scheduler sees when it plans `epoch`; see `Scheduler` for `on_truth`."""
        shown = self.truth if on_truth else self.forecasts
        return Observation(
            world=self.world,
            time=self.epochs.time[epoch],
            forecast=shown(np.array([epoch])),
            state=state,
            budget=Budget(self.run.budget.calls_per_decision),
            ahead=partial(self.ahead, epoch),
            stale=self.stale_sites(epoch - 1),
        )

    def ahead(self, epoch: int, count: int) -> Inputs:
        """Forecast [count, ...] of the epochs from `epoch` on, as it can be made before that one.

        The pool of predictors makes it, whatever makes the forecast of one epoch ahead. Outages
        last; factors that are known ahead stay as they are at the end of the record.
        """
        last = self._outlook.last_of_stretch(epoch)
        known = np.minimum(np.arange(epoch, epoch + count), last)
        values = {name: getattr(self.epochs.inputs, name)[known] for name in KNOWN_AHEAD}
        values["available"] = np.repeat(self.forecast.available[[epoch]], count, axis=0)
        return Inputs(**values, **self._outlook.ahead(epoch, count))

    @cached_property
    def _outlook(self) -> Outlook:
        """Forecasts of several epochs ahead; few schedulers ask for any."""
        seen, per_day = observed(self.epochs), self.world.epochs_per_day
        return Outlook(
            series={name: getattr(seen, name) for name in FORECAST},
            time=self.epochs.time,
            season=per_day,
            long_season=7 * per_day,
            noise={n: noisy * self.run.signals.forecast_noise for n, noisy in FORECAST.items()},
            seed=self.run.seed,
        )

    def stale_sites(self, epoch: int) -> tuple[str, ...]:
        """Sites whose carbon or price has, in `epoch`, been missing for longer than the limit."""
        after_h = self.run.faults.stale_after_h
        return stale_sites(self.epochs, epoch, after_h, self.world.sites)


def load_task(run: RunConfig, scenario: Path, profiles: Path, noise_seed: int = 0) -> Task:
    """Read a scenario and serving profiles; forecast every epoch from what came before it."""
    from marlin.data.prepare import read
    from marlin.serving import profiles as serving

    dataset = read(scenario)
    world = build_world(dataset, run, serving.load(profiles))
    epochs = build_epochs(dataset, run, world)
    return Task(run, world, epochs, forecast_inputs(run, epochs, world.epochs_per_day, noise_seed))


def forecast_inputs(run: RunConfig, epochs: Epochs, epochs_per_day: int, noise_seed: int) -> Inputs:
    """One-epoch-ahead forecasts of demand, carbon, price, weather-driven factors and outages.

    They rest on what was observed: a missing signal counts with its last value. Annual and monthly
    factors are known ahead; what runs now is taken to run on, and what does not, not to. Each
    stretch without a gap in time is forecast by itself; its first epoch, which no history leads
    to, repeats the truth and is never planned on.
    """
    seen = observed(epochs)
    values = {name: getattr(seen, name) for name in KNOWN_AHEAD}
    stretches = contiguous(epochs.time)
    before = np.concatenate([np.r_[t.start, t.start : t.stop - 1] for t in stretches])
    values["available"] = seen.available[before]
    for index, (name, noisy) in enumerate(FORECAST.items()):
        series = getattr(seen, name)
        flat = series.reshape(len(series), -1)
        rng = np.random.default_rng([noise_seed, 100 + index])
        noise = run.signals.forecast_noise if noisy else 0.0
        predicted = np.concatenate(
            [
                forecast_series(
                    run.signals.forecast, flat[t], epochs_per_day, 7 * epochs_per_day, noise, rng
                )
                for t in stretches
            ]
        )
        unknown = np.isnan(predicted)
        predicted[unknown] = flat[unknown]
        values[name] = predicted.reshape(series.shape)
    return Inputs(**values)


def load_run(run: RunConfig) -> Task:
    """The task of a run; scenario and profiles are made in the cache when no path is given."""
    ready = inputs.ready(run)
    return load_task(run, ready.scenario, ready.profiles, noise_seed=run.seed)


def make_scheduler(run: RunConfig) -> Scheduler:
    """The scheduler that `run.method` names, with its parameters."""
    kind = compose.load_class(run.method["_target_"])
    return kind(**compose.method_parameters(run.method))
