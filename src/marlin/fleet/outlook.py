"""Forecasts of several epochs ahead, made when a scheduler asks for them: most never do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from marlin.fleet.forecast import Forecaster, contiguous, error_factor

Values = NDArray[np.float64]


@dataclass
class Outlook:
    """What the pool of predictors says, before an epoch, of that epoch and those after it.

    `series` [T, ...] by name are what was observed in each epoch of `time` [T]; a forecast made
    before epoch t rests on rows before t of the same stretch without a gap, and on nothing else.
    `noise` is the relative standard deviation, by name, of a lognormal error of mean 1, one factor
    for all epochs of a forecast, drawn from `seed`, the name's place and the epoch.

    A forecaster walks along the record: asked for epochs in order it costs one update each, asked
    for an earlier one it starts again.
    """

    series: Mapping[str, Values]
    time: np.ndarray
    season: int
    long_season: int
    noise: Mapping[str, float]
    seed: int
    _walk: tuple[int, int, Forecaster] | None = field(default=None, init=False, repr=False)

    def ahead(self, epoch: int, count: int) -> dict[str, Values]:
        """Forecast of `count` epochs from `epoch` on, [count, ...] by name.

        Raises ValueError for the first epoch of a stretch, which nothing comes before.
        """
        predicted = self._at(epoch).predict_ahead(count)
        values = {}
        for place, (name, columns) in enumerate(self._columns.items()):
            rng = np.random.default_rng([self.seed, 200 + place, epoch])
            factor = error_factor(self.noise[name], rng, (columns.stop - columns.start,))
            shape = (count, *self.series[name].shape[1:])
            values[name] = (predicted[:, columns] * factor).reshape(shape)
        return values

    def last_of_stretch(self, epoch: int) -> int:
        """The last epoch that follows `epoch` without a gap."""
        return next(s.stop for s in self._stretches if s.start <= epoch < s.stop) - 1

    @cached_property
    def _stretches(self) -> list[slice]:
        return contiguous(self.time)

    @cached_property
    def _columns(self) -> dict[str, slice]:
        """Columns of each series in the flat record."""
        sizes = [int(np.prod(values.shape[1:])) for values in self.series.values()]
        ends = np.cumsum(sizes).tolist()
        return {
            name: slice(end - size, end)
            for name, size, end in zip(self.series, sizes, ends, strict=True)
        }

    @cached_property
    def _flat(self) -> Values:
        return np.concatenate([v.reshape(len(v), -1) for v in self.series.values()], axis=1)

    def _at(self, epoch: int) -> Forecaster:
        """The forecaster that has seen all of the stretch before `epoch`."""
        start = next(s.start for s in self._stretches if s.start <= epoch < s.stop)
        if self._walk is None or self._walk[0] != start or self._walk[1] > epoch:
            self._walk = (start, start, Forecaster(self.season, self.long_season))
        _, seen, forecaster = self._walk
        while seen < epoch:
            stop = min(seen + self.season, epoch)
            forecaster.consume(self._flat[seen:stop])
            seen = stop
        self._walk = (start, seen, forecaster)
        return forecaster
