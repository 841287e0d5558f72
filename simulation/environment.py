"""The environment file: what world to dry-run a job in. `flint submit` never reads it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from device_runtime.errors import FlintError
from feature_catalog.strict_yaml import StrictYamlError, load_mapping, read_text
from server.job import Job
from server.strict_blocks import BlockProblem, also_to_mend, block_problems, shown
from simulation.cluster_settings import ADDRESSES, ClusterSettings, is_cluster_address
from simulation.traces.spans import SpanRules

_CATALOG_NAME = re.compile(r"^[a-z][a-z0-9_-]{0,62}(@([1-9][0-9]*|latest))?$")


class EnvironmentFileError(FlintError):
    """The file cannot be read as an environment file at all."""

    code = "FLN-1710"


class InvalidEnvironmentValue(EnvironmentFileError):
    """A key has an impossible value, or a required key is missing."""

    code = "FLN-1711"


class UnknownEnvironmentKey(EnvironmentFileError):
    """A key no environment file has."""

    code = "FLN-1712"


class _Block(BaseModel):
    """A block of the file: immutable, no unknown keys, no silent coercion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def is_file_reference(reference: str) -> bool:
    """Whether an input is named by its path; otherwise it is ``name`` or ``name@version``."""
    return "/" in reference or Path(reference).suffix.lower() in {".parquet", ".pq", ".csv"}


def _checked_reference(reference: str) -> str:
    if is_file_reference(reference) or _CATALOG_NAME.match(reference):
        return reference
    raise ValueError(
        f"{shown(reference)} is neither a path of a .parquet or .csv file nor a name@version of "
        "the catalog; write one of them"
    )


ClientOutput = Literal["train_loss", "losses", "norms"]
"""What can be recorded of each update; docs/environment-file.md says what it costs."""

InputReference = Annotated[str, AfterValidator(_checked_reference)]


def _as_block(value: object) -> object:
    """A plain reference stands for a block with that source alone."""
    return {"source": value} if isinstance(value, str) else value


class Resample(_Block):
    """Whether what is too few may be used several times."""

    availability: bool = False
    data: bool = False


class RecordCounts(_Block):
    """How many records each client holds, for dry-runs that train nothing.

    In the file a plain path stands for a block with that ``source`` alone.

    Attributes:
        source: A file with a column ``records``, a row a client.
        median: Of a lognormal distribution, in place of a file.
        log_stdev: Standard deviation of the logarithm; 0: all clients hold ``median``.
        most: No client holds more.
    """

    source: str | None = None
    median: float | None = Field(default=None, ge=1, le=1e9)
    log_stdev: float = Field(default=0.0, ge=0, le=10)
    most: int = Field(default=1_000_000, ge=1, le=10**9)

    @model_validator(mode="before")
    @classmethod
    def _source_alone(cls, value: object) -> object:
        return _as_block(value)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.source is None) == (self.median is None):
            raise ValueError(
                "give either the path of a file with a column records, or the median (and "
                "log_stdev) of a distribution"
            )
        if self.source is not None and not is_file_reference(self.source):
            raise ValueError(
                f"{shown(self.source)} is no path of a .parquet or .csv file; name one that has a "
                "column records"
            )
        return self


class PopulationSettings(_Block):
    """Which data client lives on which traced device.

    Attributes:
        clients: Size of the population; None: as many as the data set has.
        records: How many records clients hold where no data set says it.
        seed: The population's own: trials of a run share the population.
    """

    clients: int | None = Field(default=None, ge=1, le=2**31)
    records: RecordCounts | None = None
    assignment: Literal["random", "by_activity"] = "random"
    resample: Resample = Resample()
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _counted(self) -> Self:
        drawn = self.records is not None and self.records.source is None
        if drawn and self.clients is None:
            raise ValueError(
                "records are drawn from a distribution, so nobody says how many clients there "
                "are; add clients"
            )
        return self


class CheckIn(_Block):
    """How often a device asks for work while it is available.

    Attributes:
        period_s: How often its system wakes it; it never comes before pace steering told it to.
        jitter: Half-width of the spread of each interval, as a share of it.
        check_ins_per_s: Rate that pace steering aims at, all devices together, as of `flint up`.
    """

    period_s: float = Field(default=900.0, gt=0)
    jitter: float = Field(default=0.2, ge=0, lt=1)
    check_ins_per_s: float = Field(default=200.0, gt=0)


class DatasetInput(_Block):
    """The proxy data set: of the catalog, or a file that is added to it.

    In the file a plain path or name stands for a block with that ``source`` alone.

    Attributes:
        client_field: Column of a file that says whose record it is.
        label_field: Column of a file with the label, 0 or 1.
        text_field: Column of a file with free text.
        exclude_fields: Columns of a file not to learn from.
    """

    source: InputReference
    client_field: str = "client_id"
    label_field: str = "label"
    text_field: str | None = None
    exclude_fields: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _source_alone(cls, value: object) -> object:
        return _as_block(value)

    @field_validator("exclude_fields", mode="before")
    @classmethod
    def _as_tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


class AvailabilityInput(_Block):
    """The availability trace and what to do with its spans.

    In the file a plain path or name stands for a block with that ``source`` alone.

    Attributes:
        only: Rows to keep, by column value.
    """

    source: InputReference
    only: dict[str, str] = Field(default_factory=dict)
    merge: bool = False
    max_span_s: float | None = Field(default=None, gt=0)
    longer: Literal["cut", "drop"] = "cut"
    repeat_every_s: float | None = Field(default=None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _source_alone(cls, value: object) -> object:
        return _as_block(value)

    @field_validator("only", mode="before")
    @classmethod
    def _whole_numbers_as_text(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {k: str(v) if type(v) is int else v for k, v in value.items()}

    @property
    def rules(self) -> SpanRules:
        """What the reader is told."""
        return SpanRules(self.merge, self.max_span_s, self.longer, self.repeat_every_s)


class Dropout(_Block):
    """Devices that drop out of a task for reasons no trace tells, at a constant hazard."""

    hazard_per_hour: float = Field(ge=0)


class Executors(_Block):
    """What trains the updates; results do not depend on it.

    Attributes:
        kind: ``local``: processes of this machine; ``ray``: actors of a Ray cluster.
        count: How many.
        stall_timeout_s: One that is asked for tasks and finishes none for so long is replaced.
        address: Of the cluster; None: ``auto``. This and what follows are for ``ray`` alone.
        records: Whether nodes find the records at the run's path, or are sent them; None: shared.
        ready_timeout_s: Within this all must be ready; None: 300.
    """

    kind: Literal["local", "ray"] = "local"
    count: int = Field(default=1, ge=1, le=1024)
    stall_timeout_s: float = Field(default=600.0, gt=0, le=86_400)
    address: str | None = None
    records: Literal["shared", "sent"] | None = None
    ready_timeout_s: float | None = Field(default=None, gt=0, le=86_400)

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        of_ray = ("address", "records", "ready_timeout_s")
        given = [key for key in of_ray if getattr(self, key) is not None]
        if self.kind == "local" and given:
            raise ValueError(
                f"{given[0]} is of a Ray cluster, and kind is local; set kind: ray, or remove "
                f"{given[0]}"
            )
        if self.address is not None and not is_cluster_address(self.address):
            raise ValueError(
                f"address {shown(self.address)} names no Ray cluster; write {ADDRESSES}"
            )
        return self

    @property
    def cluster(self) -> ClusterSettings | None:
        """Where they run; None for processes of this machine."""
        if self.kind == "local":
            return None
        default = ClusterSettings()
        return ClusterSettings(
            self.address or default.address,
            self.records or default.records,
            self.ready_timeout_s or default.ready_timeout_s,
        )


class TrainingSettings(_Block):
    """How executors train the updates.

    Attributes:
        path: ``auto``: the fastest exact way; ``module``: the model's torch module and autograd.
        device: Where that module is; a GPU has no other way.
    """

    path: Literal["auto", "module"] = "auto"
    device: Literal["cpu", "cuda"] = "cpu"

    @model_validator(mode="after")
    def _module_on_a_gpu(self) -> Self:
        if self.device == "cuda" and self.path != "module":
            raise ValueError(
                "device is cuda, where only torch modules are trained; add path: module, or remove "
                "device"
            )
        return self


class Environment(_Block):
    """A whole environment file, checked.

    Attributes:
        dataset: Proxy data set; None for a Flower app, which brings its own data.
        availability: Trace of sessions.
        device_profiles: Seconds per example of each device model.
        device_population: Share of each device model; None if the trace names each device's.
        bandwidth: Link speeds.
        client_outputs: What is recorded of each update: ``train_loss``, ``losses``, ``norms``.
        trials: Repetitions with other random streams in the same population.
    """

    dataset: DatasetInput | None = None
    population: PopulationSettings = PopulationSettings()
    check_in: CheckIn = CheckIn()
    availability: AvailabilityInput
    device_profiles: InputReference
    device_population: InputReference | None = None
    bandwidth: InputReference
    dropout: Dropout | None = None
    executors: Executors = Executors()
    training: TrainingSettings = TrainingSettings()
    client_outputs: tuple[ClientOutput, ...] = ()
    trials: int = Field(default=1, ge=1, le=1000)

    @field_validator("client_outputs", mode="before")
    @classmethod
    def _each_once(cls, value: object) -> object:
        if not isinstance(value, list):
            return value
        return tuple(each for at, each in enumerate(value) if each not in value[:at])

    @model_validator(mode="after")
    def _records_told_once(self) -> Self:
        if self.dataset is not None and self.population.records is not None:
            raise ValueError(
                "dataset and population.records both say how many records clients hold; remove one "
                "of them"
            )
        return self

    def to_json(self) -> str:
        """Canonical JSON, as recorded with a run."""
        return self.model_dump_json()


_FORMS = {
    "dataset": "a file path, a name@version of the catalog, or a block with source",
    "availability": "a file path, a name@version of the catalog, or a block with source",
    "population.records": "a file path, or a block with median and log_stdev",
}


def load_environment(path: Path) -> Environment:
    """Read and check an environment file.

    Raises:
        EnvironmentFileError: Or a subclass; one sentence naming file, key, value and mend.
    """
    try:
        text = read_text(path, what="environment file")
    except StrictYamlError as error:
        raise EnvironmentFileError(str(error)) from error
    return parse_environment(text, source=path.name)


def parse_environment(text: str, *, source: str = "environment.yaml") -> Environment:
    """Check the text of an environment file.

    Args:
        source: What the sentence calls the file.

    Raises:
        EnvironmentFileError: As `load_environment`.
    """
    try:
        raw = load_mapping(text)
    except StrictYamlError as error:
        raise EnvironmentFileError(f"{source}: {error}; mend the YAML") from error
    try:
        return Environment.model_validate(raw, strict=True)
    except ValidationError as error:
        problems = block_problems(error, raw, Environment, forms=_FORMS, foreign_key=_foreign_key)
        raise _as_error(source, problems) from error


def _as_error(source: str, problems: Sequence[BlockProblem]) -> EnvironmentFileError:
    first = problems[0]
    kind = UnknownEnvironmentKey if first.unknown_key else InvalidEnvironmentValue
    return kind(f"{source}: {first.sentence}{also_to_mend(problems)}")


def _foreign_key(keys: Sequence[str]) -> str | None:
    """Say where a key of a job file belongs."""
    if len(keys) != 1 or keys[0] not in Job.model_fields:
        return None
    where = " (a population has its own: population.seed)" if keys[0] == "seed" else ""
    return (
        f"{keys[0]} belongs to a job file, which says what to train and how, not to an "
        f"environment{where}; remove it."
    )
