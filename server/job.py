"""The job file: what to train and how. One file serves `flint simulate` and `flint submit`."""

import math
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from device_runtime.compression import MAX_FRACTION, UpdateCodec
from device_runtime.participation import ParticipationPolicy
from device_runtime.release_policy import ReleasePolicy
from server.device_criteria import DeviceCriteria
from server.job_block import Block

STALENESS_STEPS = 64
"""Masked mode: staleness factors are rounded to multiples of one in so many."""


class ExponentialSchedule(Block):
    """Learning rate times ``decay ** (base version // every)``."""

    name: Literal["exponential"]
    decay: float = Field(gt=0, le=1)
    every: int = Field(ge=1)


class ClientOptimizer(Block):
    """What runs inside the ``train`` signature on the device."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(gt=0)
    schedule: ExponentialSchedule | None = None

    def learning_rate_at(self, base_version: int) -> float:
        """Learning rate of a task that starts from ``base_version``."""
        if self.schedule is None:
            return self.learning_rate
        return self.learning_rate * self.schedule.decay ** (base_version // self.schedule.every)


class NoCompression(Block):
    """Updates are sent as plain float32."""

    name: Literal["none"] = "none"

    @property
    def codec(self) -> UpdateCodec | None:
        """None: plain float32."""
        return None


class QuantisedUpdates(Block):
    """Every value of an update in 16 or 8 bits (`device_runtime.compression`)."""

    name: Literal["float16", "int8"]

    @property
    def codec(self) -> UpdateCodec | None:
        """As devices are asked for it."""
        return UpdateCodec(self.name)


class TopKUpdates(Block):
    """Only the values of an update that are largest in magnitude (`device_runtime.compression`).

    Attributes:
        fraction: Share of the model's parameters that is sent.
        values: Encoding of the values that are sent.
        error_feedback: Whether a device adds what it left out to its next update.
    """

    name: Literal["top_k"]
    fraction: float = Field(gt=0, le=MAX_FRACTION)
    values: Literal["float32", "float16", "int8"] = "float16"
    error_feedback: bool = True

    @property
    def codec(self) -> UpdateCodec | None:
        """As devices are asked for it."""
        return UpdateCodec(self.name, self.fraction, self.values, self.error_feedback)


Compression = Annotated[NoCompression | QuantisedUpdates | TopKUpdates, Field(discriminator="name")]


class ClientTraining(Block):
    """What one task does on one device.

    Attributes:
        compression: How its update is encoded; devices that cannot send plain float32.
        task_timeout_s: A leased task without an answer ends as interrupted after this long.
        proximal_mu: Strength of FedProx's proximal term; 0 leaves it out.
    """

    local_epochs: int = Field(default=1, ge=1, le=1000)
    batch_size: int = Field(default=20, ge=1, le=4096)
    max_records: int = Field(default=500, ge=1, le=1_000_000)
    optimizer: ClientOptimizer
    compression: Compression = NoCompression()
    proximal_mu: float = Field(default=0.0, ge=0)
    task_timeout_s: float = Field(default=600.0, gt=0)


class ServerSgd(Block):
    """``w += learning_rate * d``, with optional momentum (FedAvgM)."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(default=1.0, gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)


class ServerAdaptive(Block):
    """FedAdam, FedYogi or FedAdagrad (Reddi et al., ICLR 2021, Algorithm 2)."""

    name: Literal["adam", "yogi", "adagrad"]
    learning_rate: float = Field(gt=0)
    beta_1: float = Field(default=0.9, ge=0, lt=1)
    beta_2: float = Field(default=0.99, ge=0, lt=1)
    epsilon: float = Field(default=1e-3, gt=0)


ServerOptimizer = Annotated[ServerSgd | ServerAdaptive, Field(discriminator="name")]


class PolynomialStaleness(Block):
    """``(1 + staleness) ** -exponent`` (FedBuff, section 4)."""

    name: Literal["polynomial"] = "polynomial"
    exponent: float = Field(default=0.5, ge=0)


class _Strategy(Block):
    weighting: Literal["uniform", "examples"]
    max_examples: int | None = Field(default=None, ge=1)
    server_optimizer: ServerOptimizer = ServerSgd()

    def weight(self, num_examples: int) -> float:
        """Weight ``c_i`` of one update: 1, or its example count capped at ``max_examples``."""
        if self.weighting == "uniform":
            return 1.0
        if self.max_examples is None:
            return float(num_examples)
        return float(min(num_examples, self.max_examples))


class FedAvgSettings(_Strategy):
    """Synchronous rounds with over-commitment (McMahan 2017; Bonawitz 2019)."""

    name: Literal["fedavg"]
    cohort_size: int = Field(ge=1)
    over_commitment: float = Field(default=1.3, ge=1, le=10)
    round_deadline_s: float = Field(default=600, gt=0)
    min_updates: int = Field(default=1, ge=1)
    weighting: Literal["uniform", "examples"] = "examples"

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.min_updates > self.cohort_size:
            raise ValueError(
                f"min_updates ({self.min_updates}) is larger than cohort_size "
                f"({self.cohort_size}), so every round would be abandoned; lower min_updates"
            )
        return self


class FedBuffSettings(_Strategy):
    """Buffered asynchronous aggregation (Nguyen et al., AISTATS 2022)."""

    name: Literal["fedbuff"]
    buffer_size: int = Field(ge=1)
    concurrency: int = Field(ge=1)
    max_staleness: int = Field(default=10, ge=0)
    staleness_weight: PolynomialStaleness = PolynomialStaleness()
    weighting: Literal["uniform", "examples"] = "uniform"


StrategySettings = Annotated[FedAvgSettings | FedBuffSettings, Field(discriminator="name")]


class Robustness(Block):
    """Limits on one update; beyond them it is refused.

    Attributes:
        max_update_norm: L2 norm over all parameters; None leaves it unlimited.
        max_claimed_examples: Defaults to ``client.max_records``, all a device may train on.
        max_share_per_host_app: Largest share of an aggregate's weight that devices of one host app
            may have together; needs ``secure_aggregation``.
    """

    max_update_norm: float | None = Field(default=None, gt=0)
    max_claimed_examples: int | None = Field(default=None, ge=1)
    max_share_per_host_app: float | None = Field(default=None, gt=0, le=1)


class SecureAggregation(Block):
    """Updates leave devices only sealed to an enclave, which lets out sums alone.

    Attributes:
        mode: ``enclave``: it sums updates. ``masked``: the host sums updates under one-time pads,
            the enclave the pads; its traffic does not grow with the model.
        release_threshold: Least number of devices in whatever it lets out.
        allowed_measurements: What a device accepts as the enclave's identity, as
            ``flint enclave measure`` prints it.
        max_share_per_device: Largest share of an aggregate's weight that one device may have.
        clip_value: Masked mode: values of an update beyond this are clipped on the device.
    """

    mode: Literal["enclave", "masked"] = "enclave"
    release_threshold: int = Field(ge=2)
    allowed_measurements: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...],
        Field(min_length=1, max_length=64),
        BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given),
    ]
    max_share_per_device: float = Field(default=0.5, gt=0, le=1)
    clip_value: float = Field(default=1.0, gt=0)


class Privacy(Block):
    """Protection of users against the server, and of the model against users."""

    robustness: Robustness = Robustness()
    secure_aggregation: SecureAggregation | None = None


class Budget(Block):
    """What a job may cost.

    Attributes:
        enclave_mb_per_s: Megabytes a second (10^6 bytes) that may go into enclaves; a dry-run says
            how many will.
    """

    enclave_mb_per_s: float | None = Field(default=None, gt=0)


class StateCriteria(Block):
    """What the device must be like at the moment of taking part (FLINT, Table 1)."""

    wifi: bool | None = None
    min_battery: float | None = Field(default=None, ge=0, le=1)
    foreground: bool | None = None
    allowed_hours: str | None = Field(
        default=None, pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"
    )


class UserCriteria(Block):
    """What the user must be like."""

    min_account_age_days: int | None = Field(default=None, ge=0)
    min_hours_between_participations: float | None = Field(default=None, ge=0)


class Participation(Block):
    """The same criteria build traces, select clients and gate the device.

    Attributes:
        device: None: devices of any model and release.
    """

    device: DeviceCriteria | None = None
    state: StateCriteria = StateCriteria()
    user: UserCriteria = UserCriteria()

    def policy(self) -> ParticipationPolicy:
        """What devices judge by themselves: the form in which they get and acknowledge it."""
        return ParticipationPolicy(**self.state.model_dump(), **self.user.model_dump())


class Evaluation(Block):
    """Central evaluation of every ``every``-th version on a held-out data set.

    Attributes:
        dataset: ``name``, ``name@version`` of the catalog, whose held-out clients are used.
    """

    every: int = Field(default=5, ge=1)
    metric: Literal["auprc", "accuracy"] = "auprc"
    mode: Literal["central"] = "central"
    dataset: str


class Stop(Block):
    """When the job ends; whichever comes first.

    Attributes:
        target: Metric value to reach (needs ``evaluation``).
        max_updates: Updates aggregated over all versions.
        max_hours: Hours of the fleet's clock.
    """

    max_aggregations: int | None = Field(default=None, ge=1)
    max_updates: int | None = Field(default=None, ge=1)
    target: float | None = Field(default=None, gt=0, le=1)
    max_hours: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.max_aggregations is None and self.max_updates is None and self.max_hours is None:
            raise ValueError(
                "the job would never end; set max_aggregations, max_updates or max_hours"
            )
        return self


class Selection(Block):
    """Which of the devices that check in are given a task."""

    name: Literal["arrival", "uniform"] = "arrival"


class Job(Block):
    """A whole job file, checked.

    Attributes:
        feature_service: ``name``, or once submitted ``name@contract`` (SHA-256, hexadecimal).
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")
    model: str
    feature_service: str | None = Field(
        default=None, pattern=r"^[a-z][a-z0-9_]{0,62}(@[0-9a-f]{64})?$"
    )
    client: ClientTraining
    strategy: StrategySettings
    initial_version: str | None = None
    participation: Participation = Participation()
    privacy: Privacy = Privacy()
    evaluation: Evaluation | None = None
    stop: Stop
    selection: Selection = Selection()
    budget: Budget = Budget()
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _target_is_measured(self) -> Self:
        if self.stop.target is not None and self.evaluation is None:
            raise ValueError("stop.target needs an evaluation block, or it is never measured")
        return self

    @model_validator(mode="after")
    def _secure_aggregation_can_work(self) -> Self:
        secure, robustness = self.privacy.secure_aggregation, self.privacy.robustness
        if secure is None:
            if robustness.max_share_per_host_app is not None:
                raise ValueError(
                    "privacy.robustness.max_share_per_host_app is kept by an enclave; add "
                    "privacy.secure_aggregation, or remove it"
                )
            if self.budget.enclave_mb_per_s is not None:
                raise ValueError(
                    "budget.enclave_mb_per_s needs privacy.secure_aggregation: without it nothing "
                    "goes into an enclave"
                )
            return self
        strategy = self.strategy
        if isinstance(strategy, FedBuffSettings):
            key, least = "strategy.buffer_size", strategy.buffer_size
        else:
            key, least = "strategy.min_updates", strategy.min_updates
        if least < secure.release_threshold:
            raise ValueError(
                f"{key} ({least}) is below privacy.secure_aggregation.release_threshold "
                f"({secure.release_threshold}): the enclave would keep every such aggregate; "
                f"raise {key}"
            )
        if secure.max_share_per_device * secure.release_threshold < 1:
            raise ValueError(
                f"privacy.secure_aggregation.max_share_per_device "
                f"({secure.max_share_per_device:g}) is below 1/release_threshold: no aggregate of "
                f"{secure.release_threshold} devices could keep to it; raise one of them"
            )
        if secure.mode == "masked":
            self._masked_can_work()
        return self

    def _masked_can_work(self) -> None:
        """In masked mode nobody can look at an update, so nothing may depend on its content."""
        robustness = self.privacy.robustness
        blind = "in masked mode nobody sees an update, so "
        if robustness.max_update_norm is not None:
            raise ValueError(
                f"{blind}privacy.robustness.max_update_norm cannot be checked; use mode: enclave, "
                "or remove it"
            )
        if robustness.max_share_per_host_app is not None:
            raise ValueError(
                f"{blind}host apps cannot be scaled by privacy.robustness.max_share_per_host_app; "
                "use mode: enclave, or remove it"
            )
        if self.client.compression.codec is not None:
            raise ValueError(
                f"{blind}client.compression cannot be undone before summing; use mode: enclave, "
                "or compression: {name: none}"
            )
        if self.strategy.weighting != "uniform":
            raise ValueError(
                f"{blind}strategy.weighting: examples cannot be applied; use mode: enclave, or "
                "weighting: uniform"
            )
        self.release_policy()

    def release_policy(self) -> ReleasePolicy | None:
        """What an enclave lets out of this job, and when; None where there is no enclave.

        Raises:
            InvalidReleasePolicy: If in masked mode an aggregate would not fit 32 bits.
        """
        secure, strategy = self.privacy.secure_aggregation, self.strategy
        if secure is None:
            return None
        if secure.mode == "enclave":
            return ReleasePolicy(
                mode="enclave",
                release_threshold=secure.release_threshold,
                max_share_per_device=secure.max_share_per_device,
                max_share_per_host_app=self.privacy.robustness.max_share_per_host_app,
            )
        steps = 1
        if isinstance(strategy, FedBuffSettings):
            # All that can be held: a full buffer less one, and whoever is on the way.
            most = strategy.buffer_size + strategy.concurrency
            if strategy.staleness_weight.exponent > 0 and strategy.max_staleness > 0:
                steps = STALENESS_STEPS
        else:
            most = 2 * math.ceil(strategy.cohort_size * strategy.over_commitment)
        return ReleasePolicy(
            mode="masked",
            release_threshold=secure.release_threshold,
            max_share_per_device=secure.max_share_per_device,
            clip_value=secure.clip_value,
            max_updates=most,
            staleness_steps=steps,
        )

    @property
    def max_claimed_examples(self) -> int:
        """Example count beyond which an update is refused."""
        return self.privacy.robustness.max_claimed_examples or self.client.max_records

    @property
    def feature_contract_sha256(self) -> bytes | None:
        """Digest of the feature contract the job is pinned to; None where it names no service."""
        _, _, sha256 = (self.feature_service or "").partition("@")
        return bytes.fromhex(sha256) if sha256 else None

    def to_json(self) -> str:
        """Canonical JSON, as stored in the catalog and sent to gateways."""
        # A job without a service reads as it did before there were any.
        unset = {"feature_service"} if self.feature_service is None else None
        return self.model_dump_json(exclude=unset)
