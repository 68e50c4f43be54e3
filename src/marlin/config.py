"""The schema of `conf/`: every scientific setting, its type, its range and its meaning.

Hydra composes the YAML files; the models below check the result, so that a misspelt or
out-of-range key fails before anything runs and the message names the nearest valid key.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_NODES = 1_000_000


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values do not change after checking."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Period(Section):
    """A stretch of whole UTC days, both ends included (ISO dates)."""

    first: str
    last: str

    @field_validator("first", "last")
    @classmethod
    def _is_iso_date(cls, value: str) -> str:
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            raise ValueError("it must be a date such as 2024-06-30, in quotes") from None

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.first > self.last:
            raise ValueError(f"it ends ({self.last}) before it begins ({self.first})")
        return self


class ScenarioConfig(Section):
    """Horizon and split: days to learn from and days to be scored on never overlap."""

    name: str
    epoch_minutes: int = Field(15, ge=5, le=60)
    train: Period
    test: Period
    validation_days: int = Field(
        2, ge=1, le=60, description="at the end of train, for choosing and curves, not for fitting"
    )
    test_days: int = Field(6, ge=1, le=366, description="evenly spaced over the test period")

    @model_validator(mode="after")
    def _days_never_overlap(self) -> Self:
        train, test = self.train, self.test
        if train.first <= test.last and test.first <= train.last:
            raise ValueError("train and test share days: scores would be of days learnt from")
        return self


class Tariff(Section):
    """A price that repeats every day: `base`, and other prices in some hours of the clock."""

    timezone: str = Field(description="whose clock the hours follow, for example UTC")
    base_usd_per_mwh: float
    hours: dict[str, float] = Field({}, description='price by hours, both included: {"16-18": 90}')

    def usd_per_mwh(self) -> list[float]:
        """The 24 prices; ValueError for hours that are none."""
        prices = [self.base_usd_per_mwh] * 24
        for span, price in self.hours.items():
            first, _, last = span.partition("-")
            if not (first.isdigit() and (last or first).isdigit()):
                raise ValueError(f"hours {span!r} are none: write 16-18 or 23")
            if not int(first) <= int(last or first) <= 23:
                raise ValueError(f"hours {span!r} are not in order within 0-23")
            for hour in range(int(first), int(last or first) + 1):
                prices[hour] = price
        return prices

    @model_validator(mode="after")
    def _hours_are_hours(self) -> Self:
        self.usd_per_mwh()
        return self


class OwnGrid(Section):
    """Grid figures of a site that stand in for those of its zone, where given."""

    carbon_g_per_kwh: float | None = Field(None, ge=0, description="constant")
    ewif_l_per_kwh: float | None = Field(None, ge=0, description="constant")
    tariff: Tariff | None = None


class RoundTrips(Section):
    """A fleet's own round-trip times, in place of the Azure matrix."""

    path: Literal["direct", "ring"] = Field(
        description="ring: the shorter way round, hop by hop in the order of the table"
    )
    rtt_ms: dict[str, list[float]] = Field(description="row from, columns to; equal order")

    @model_validator(mode="after")
    def _is_square(self) -> Self:
        for name, row in self.rtt_ms.items():
            if len(row) != len(self.rtt_ms):
                raise ValueError(f"row {name} has {len(row)} entries, not {len(self.rtt_ms)}")
            if min(row) < 0:
                raise ValueError(f"row {name} has a negative time")
        return self


class Site(Section):
    """One datacenter of the fleet."""

    name: str
    zone: str = Field(description="grid zone of carbon, price and weather, for example GB")
    cooling: Literal["tower", "adiabatic"]
    network: str = Field(description="Azure region whose RTT stands for the site, UK South")
    nodes: dict[str, int] = Field(description="nodes by node type")
    grid: OwnGrid = OwnGrid()


class NodeType(Section):
    """A server kind: GPU model x GPUs per node, and what the node draws beside its GPUs."""

    gpu: str = Field(description="A100, H100, H200, B200, L40S, or one of serving.gpus")
    gpus: int = Field(ge=1, le=16)
    base_idle_w: float = Field(ge=0)
    base_full_w: float = Field(ge=0)
    boot_s: float = Field(ge=0, description="cold start of the server, before weights load")


class FleetConfig(Section):
    """Sites and node types."""

    name: str
    node_types: dict[str, NodeType] = Field(min_length=1)
    sites: list[Site] = Field(min_length=1)
    round_trips: RoundTrips | None = Field(None, description="none: the measured Azure matrix")

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = [site.name for site in self.sites]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two sites are called {name}")
        for site in self.sites:
            for node_type, count in site.nodes.items():
                if node_type not in self.node_types:
                    known = ", ".join(self.node_types)
                    raise ValueError(f"site {site.name} has {node_type} nodes: not in {known}")
                if not 0 <= count <= MAX_NODES:
                    raise ValueError(f"site {site.name} has {count} nodes of type {node_type}")
        for name in (self.name, *names, *self.node_types):
            if not (0 < len(name) <= 64 and name.isprintable() and name.strip() == name):
                raise ValueError(f"{name!r} is no name: use 1 to 64 printable characters")
        if not any(sum(site.nodes.values()) for site in self.sites):
            raise ValueError("no site has a node")
        return self


class Origin(Section):
    """A region of users. No public trace has the user's location: this is modelled."""

    population_m: float = Field(gt=0, description="weight of the region, million people")
    timezone: str = Field(description="IANA name, for example Europe/London")
    network: str = Field(description="Azure region that stands for the users' point of presence")


class WorkloadConfig(Section):
    """Who asks for what, and how much: requests by origin, model and service."""

    name: str
    services: list[str] = Field(
        [], description="of the Azure data; those of `path` if there is one"
    )
    path: str | None = Field(None, description="a trace of one's own, CSV or Parquet")
    sha256: str | None = Field(None, description="of the content of `path`; filled in")
    skip_bad_rows: bool = Field(False, description="of `path`: leave them out, and say so")
    origins: dict[str, Origin]
    reference_timezone: str = Field(description="whose local time the measured UTC week follows")
    last_mile_rtt_s: float = Field(ge=0, le=1)
    token_year: Literal[2023, 2024] = Field(
        description="2023: token lengths of the measured rows; 2024: weighted to those of 2024"
    )
    large_share: float = Field(ge=0, le=1, description="share of requests for the large model")
    peak_utilisation: float = Field(gt=0, le=2, description="of the whole fleet, in train")
    noise_sd: float = Field(ge=0, le=1, description="relative, stationary, of 15-minute demand")
    noise_correlation: float = Field(ge=0, lt=1, description="from one epoch to the next")

    @model_validator(mode="after")
    def _services_have_data(self) -> Self:
        if self.path is None and not self.services:
            raise ValueError("services is empty: name conversation, code or both")
        for name in self.services:
            if self.path is None and name not in ("conversation", "code"):
                raise ValueError(f"service {name!r} has no data: it must be conversation or code")
        return self


class SignalsConfig(Section):
    """Where grid, price, weather, network and request data come from."""

    name: str
    source: Literal["embedded", "measured"]
    carbon_family: Literal["direct", "lifecycle", "marginal"]
    hydropower_l_per_kwh: Literal[0, 17]
    us_mix: Literal["annual", "shape_2022"] = Field(
        "shape_2022", description="water of US grids: by the year, or with the hours of 2022"
    )
    forecast: Literal["pool", "seasonal_naive", "ridge"] = "pool"
    forecast_noise: float = Field(ge=0, le=1, description="relative sd injected into forecasts")


class PhysicsConfig(Section):
    """Cooling, water and energy accounting; sources in docs/physics.md."""

    name: str
    cooling: Literal["weather", "crac", "regression", "hourly_cop"]
    cooling_factor: float = Field(
        ge=1, le=3, description="energy of all cooling per that of the compressor; crac, hourly_cop"
    )
    onsite_water: Literal["balance", "cubic", "cubic_capped", "all_latent"]
    setpoint_c: float = Field(ge=15, le=35)
    economiser_effectiveness: float = Field(ge=0, le=1)
    chiller_effectiveness: float = Field(gt=0, lt=1)
    distribution_loss: float = Field(ge=0, le=0.3)
    fan_power: float = Field(ge=0, le=0.3)
    pump_power: float = Field(ge=0, le=0.3)
    cycles_of_concentration: float = Field(gt=1, le=20)
    water_supply_kwh_per_m3: float = Field(ge=0, le=5, description="its carbon counts; 0: not")
    wastewater_kwh_per_m3: float = Field(ge=0, le=5, description="of blowdown; 0: not counted")
    price_pass_through: float = Field(ge=0, le=1, description="share of wholesale that is paid")
    price_adder_usd_per_mwh: float = Field(
        ge=0, le=500, description="grid fees, levies, fixed part"
    )
    demand_charge_usd_per_kw_month: float = Field(ge=0, le=100, description="reported beside cost")
    embodied_g_per_gpu_hour: float = Field(ge=0, le=500, description="reported beside carbon")
    network_kwh_per_gb: float = Field(ge=0, le=1, description="reported beside energy")

    @model_validator(mode="after")
    def _water_has_its_heat(self) -> Self:
        if self.onsite_water == "all_latent" and self.cooling not in ("crac", "hourly_cop"):
            raise ValueError(
                "onsite_water=all_latent takes its heat from a COP: cooling=crac or hourly_cop"
            )
        return self


class ModelCard(Section):
    """Sizes of a model that the package of profiles does not know, from its model card."""

    layers: int = Field(ge=1)
    hidden: int = Field(ge=1)
    intermediate: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    vocabulary: int = Field(ge=1)
    experts: int = Field(1, ge=1, description="MLPs side by side; 1 is a dense model")
    active_experts: int = Field(1, ge=1, description="MLPs that a token passes")


class ServingModel(Section):
    """One model of the workload and how it is laid out on GPUs."""

    name: str
    tp: dict[str, int] = Field(description="tensor parallelism by node type or GPU model")
    card: ModelCard | None = Field(None, description="of a model of one's own")


class GpuCard(Section):
    """A GPU of one's own: data sheet, power, and where its step times come from."""

    system: str = Field("", description="its name in aiconfigurator-core, such as h100_sxm")
    measurements: str | None = Field(None, description="CSV of timings, instead of a system")
    memory_bytes: float = Field(gt=0)
    bandwidth_tb_per_s: float = Field(gt=0)
    compute_tflop_per_s: float = Field(gt=0, description="dense BF16")
    tdp_w: float = Field(gt=0)
    context_w: float = Field(gt=0, description="a model loaded, nothing to do")
    deep_idle_w: float = Field(ge=0)
    w_per_tb_per_s: float = Field(ge=0)
    w_per_tflop_per_s: float = Field(ge=0)
    power_source: str

    @model_validator(mode="after")
    def _has_times(self) -> Self:
        if bool(self.system) == (self.measurements is not None):
            raise ValueError("it needs either system or measurements")
        return self


class ServingConfig(Section):
    """Models, engine and the limits under which replicas run."""

    name: str
    backend: Literal["vllm", "sglang", "trtllm", "paper"]
    models: list[ServingModel]
    gpus: dict[str, GpuCard] = Field({}, description="GPUs of one's own, by name")
    max_batch: int = Field(ge=1, le=4096)
    utilisation_ceiling: float = Field(gt=0, lt=1, description="dispatcher fills a site to this")
    patience_s: float = Field(gt=0, description="a request that waits longer is dropped")
    off_state: Literal["off", "deep_idle"]
    first_token: Literal["prefill", "all_tokens"] = Field(
        "prefill", description="all_tokens: a request counts as begun when it is done"
    )


class Fault(Section):
    """Something that goes wrong for some hours; without a site or origin, at all of them."""

    kind: Literal["site_outage", "pool_loss", "signal_missing", "demand_surge", "price_shock"]
    start: str = Field(description="2024-06-08T10:00 (UTC), or 10:00 for every day of the test")
    hours: float = Field(gt=0, le=8784)
    site: str | None = None
    node_type: str | None = Field(None, description="pool_loss: whose nodes are lost")
    signal: Literal["carbon", "price"] | None = Field(None, description="signal_missing: which")
    origin: str | None = Field(None, description="demand_surge: whose demand")
    share: float = Field(1.0, gt=0, le=1, description="of the nodes that are lost")
    factor: float = Field(1.0, ge=0, le=100, description="surge, shock: times the usual")

    @property
    def is_dated(self) -> bool:
        """Whether it happens once, on a date."""
        return "T" in self.start

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        try:
            if self.is_dated:
                aware = datetime.fromisoformat(self.start).tzinfo is not None
            else:
                aware = datetime.strptime(self.start, "%H:%M").tzinfo is not None
        except ValueError:
            raise ValueError(
                f"start {self.start!r} is neither 2024-06-08T10:00 nor 10:00 (in quotes)"
            ) from None
        if aware:
            raise ValueError(f"start {self.start!r} has a zone: leave it out, it is UTC")
        needed = {"pool_loss": "node_type", "signal_missing": "signal"}.get(self.kind)
        if needed and getattr(self, needed) is None:
            raise ValueError(f"a {self.kind} needs {needed}")
        if self.kind == "site_outage" and (self.site is None or self.node_type is not None):
            raise ValueError("a site_outage needs site and no node_type: see pool_loss")
        return self


class FaultsConfig(Section):
    """What goes wrong, and when a missing signal is called stale."""

    name: str
    stale_after_h: float = Field(2.0, ge=0, le=8784)
    events: list[Fault] = []


class BudgetConfig(Section):
    """Equal for every method: what training and each decision may cost."""

    name: str
    training_epochs: int = Field(ge=0, description="simulated epochs, summed over worlds")
    worlds: int = Field(ge=1, le=4096, description="worlds stepped at once while training")
    checkpoints: int = Field(ge=1, le=100, description="points of the learning curve")
    calls_per_decision: int = Field(ge=1, description="simulated plans per epoch when deciding")


class ScoringConfig(Section):
    """What test days are scored by: replay of a sample of their requests, or the fluid model."""

    name: str
    judge: Literal["replay", "fluid"]
    epochs: int = Field(
        6, ge=2, le=1440, description="of a day that are replayed, one by chance of each stretch"
    )
    share: float = Field(0.025, gt=0, le=1, description="of equal replicas that are simulated")
    at_least: int = Field(4, ge=1, description="replicas of a site, model and GPU, if it has them")
    warm_up_s: float = Field(60.0, ge=1, le=3600, description="replayed before each, not counted")


class TrackingConfig(Section):
    """Experiment tracker of a run made by hand; the pipeline exports all runs in one rule."""

    name: Literal["none", "wandb"]


class InputsConfig(Section):
    """Files that other stages made; a run made by hand may leave them out."""

    scenario: str | None = Field(None, description="scenario.nc of `marlin prepare`")
    profiles: str | None = Field(None, description="profiles.parquet of `marlin calibrate`")


class RunConfig(Section):
    """One run: a method on a scenario with a seed."""

    scenario: ScenarioConfig
    fleet: FleetConfig
    workload: WorkloadConfig
    signals: SignalsConfig
    physics: PhysicsConfig
    serving: ServingConfig
    method: dict[str, Any] = Field(description="name, _target_ and the scheduler's own fields")
    budget: BudgetConfig
    ablation: str
    faults: FaultsConfig = FaultsConfig(name="none")
    scoring: ScoringConfig = ScoringConfig(name="fluid", judge="fluid")
    tracking: TrackingConfig = TrackingConfig(name="none")
    inputs: InputsConfig = InputsConfig()
    seed: int = Field(ge=0, lt=2**32)


class SuiteConfig(Section):
    """A matrix of cells: scenarios x methods x ablations, each with the same seeds."""

    name: str
    scenarios: list[str] = Field(min_length=1)
    methods: list[str] = Field(min_length=1)
    ablations: list[str] = Field(min_length=1)
    ablated_methods: list[str] = Field(
        [], description="methods that the ablations other than none apply to; empty means all"
    )
    seeds: int = Field(ge=1, le=1000, description="runs of a cell, with seeds 0, 1, 2, ...")
    overrides: list[str] = Field([], description="Hydra overrides of every cell")
