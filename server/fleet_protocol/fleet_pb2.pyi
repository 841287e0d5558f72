from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CoordinatorMessage(_message.Message):
    __slots__ = ("job_id", "epoch", "sequence", "open", "set_model", "grant", "cancel", "release", "commit", "drop", "close", "acknowledge", "gateways")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    SET_MODEL_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    DROP_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGE_FIELD_NUMBER: _ClassVar[int]
    GATEWAYS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    epoch: int
    sequence: int
    open: Open
    set_model: SetModel
    grant: Grant
    cancel: Cancel
    release: Release
    commit: Commit
    drop: Drop
    close: Close
    acknowledge: Acknowledge
    gateways: Gateways
    def __init__(self, job_id: _Optional[str] = ..., epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., open: _Optional[_Union[Open, _Mapping]] = ..., set_model: _Optional[_Union[SetModel, _Mapping]] = ..., grant: _Optional[_Union[Grant, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ..., commit: _Optional[_Union[Commit, _Mapping]] = ..., drop: _Optional[_Union[Drop, _Mapping]] = ..., close: _Optional[_Union[Close, _Mapping]] = ..., acknowledge: _Optional[_Union[Acknowledge, _Mapping]] = ..., gateways: _Optional[_Union[Gateways, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("job_json", "model_spec_json", "artifact_sha256", "manifest_sha256", "contract_sha256", "committed_releases", "undecided_releases", "feature_hash_seed")
    JOB_JSON_FIELD_NUMBER: _ClassVar[int]
    MODEL_SPEC_JSON_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_SHA256_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_SHA256_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_RELEASES_FIELD_NUMBER: _ClassVar[int]
    UNDECIDED_RELEASES_FIELD_NUMBER: _ClassVar[int]
    FEATURE_HASH_SEED_FIELD_NUMBER: _ClassVar[int]
    job_json: str
    model_spec_json: str
    artifact_sha256: bytes
    manifest_sha256: bytes
    contract_sha256: bytes
    committed_releases: _containers.RepeatedScalarFieldContainer[str]
    undecided_releases: _containers.RepeatedScalarFieldContainer[str]
    feature_hash_seed: int
    def __init__(self, job_json: _Optional[str] = ..., model_spec_json: _Optional[str] = ..., artifact_sha256: _Optional[bytes] = ..., manifest_sha256: _Optional[bytes] = ..., contract_sha256: _Optional[bytes] = ..., committed_releases: _Optional[_Iterable[str]] = ..., undecided_releases: _Optional[_Iterable[str]] = ..., feature_hash_seed: _Optional[int] = ...) -> None: ...

class SetModel(_message.Message):
    __slots__ = ("version", "parameters_sha256", "oldest_live_version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_SHA256_FIELD_NUMBER: _ClassVar[int]
    OLDEST_LIVE_VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    parameters_sha256: bytes
    oldest_live_version: int
    def __init__(self, version: _Optional[int] = ..., parameters_sha256: _Optional[bytes] = ..., oldest_live_version: _Optional[int] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("grant_id", "count", "pinned", "base_version", "task_timeout_s")
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    TASK_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    grant_id: str
    count: int
    pinned: bool
    base_version: int
    task_timeout_s: float
    def __init__(self, grant_id: _Optional[str] = ..., count: _Optional[int] = ..., pinned: _Optional[bool] = ..., base_version: _Optional[int] = ..., task_timeout_s: _Optional[float] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("grant_id", "running_too")
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    RUNNING_TOO_FIELD_NUMBER: _ClassVar[int]
    grant_id: str
    running_too: bool
    def __init__(self, grant_id: _Optional[str] = ..., running_too: _Optional[bool] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("release_id", "base_versions")
    RELEASE_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    release_id: str
    base_versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, release_id: _Optional[str] = ..., base_versions: _Optional[_Iterable[int]] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("release_id",)
    RELEASE_ID_FIELD_NUMBER: _ClassVar[int]
    release_id: str
    def __init__(self, release_id: _Optional[str] = ...) -> None: ...

class Drop(_message.Message):
    __slots__ = ("base_version", "outcome", "reason")
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    base_version: int
    outcome: str
    reason: str
    def __init__(self, base_version: _Optional[int] = ..., outcome: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Acknowledge(_message.Message):
    __slots__ = ("progress_sequence",)
    PROGRESS_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    progress_sequence: int
    def __init__(self, progress_sequence: _Optional[int] = ...) -> None: ...

class Gateways(_message.Message):
    __slots__ = ("known",)
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    known: _containers.RepeatedCompositeFieldContainer[KnownGateway]
    def __init__(self, known: _Optional[_Iterable[_Union[KnownGateway, _Mapping]]] = ...) -> None: ...

class KnownGateway(_message.Message):
    __slots__ = ("gateway_id", "boot_id", "attached")
    GATEWAY_ID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    gateway_id: str
    boot_id: str
    attached: bool
    def __init__(self, gateway_id: _Optional[str] = ..., boot_id: _Optional[str] = ..., attached: _Optional[bool] = ...) -> None: ...

class GatewayMessage(_message.Message):
    __slots__ = ("job_id", "epoch", "sequence", "hello", "progress", "partial", "heartbeat")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    epoch: int
    sequence: int
    hello: Hello
    progress: Progress
    partial: Partial
    heartbeat: Heartbeat
    def __init__(self, job_id: _Optional[str] = ..., epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., partial: _Optional[_Union[Partial, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("gateway_id", "boot_id", "capacity")
    GATEWAY_ID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    gateway_id: str
    boot_id: str
    capacity: int
    def __init__(self, gateway_id: _Optional[str] = ..., boot_id: _Optional[str] = ..., capacity: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("snapshot", "leased", "completed", "ended", "refusals", "sessions")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    LEASED_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    snapshot: bool
    leased: _containers.RepeatedCompositeFieldContainer[Leased]
    completed: _containers.RepeatedCompositeFieldContainer[Completed]
    ended: _containers.RepeatedCompositeFieldContainer[Ended]
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    sessions: _containers.RepeatedCompositeFieldContainer[Sessions]
    def __init__(self, snapshot: _Optional[bool] = ..., leased: _Optional[_Iterable[_Union[Leased, _Mapping]]] = ..., completed: _Optional[_Iterable[_Union[Completed, _Mapping]]] = ..., ended: _Optional[_Iterable[_Union[Ended, _Mapping]]] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ..., sessions: _Optional[_Iterable[_Union[Sessions, _Mapping]]] = ...) -> None: ...

class Sessions(_message.Message):
    __slots__ = ("shape", "count")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    shape: str
    count: int
    def __init__(self, shape: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("reason_code", "count")
    REASON_CODE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    reason_code: int
    count: int
    def __init__(self, reason_code: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Leased(_message.Message):
    __slots__ = ("task_id", "grant_id", "client_id", "base_version")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    grant_id: str
    client_id: str
    base_version: int
    def __init__(self, task_id: _Optional[str] = ..., grant_id: _Optional[str] = ..., client_id: _Optional[str] = ..., base_version: _Optional[int] = ...) -> None: ...

class Completed(_message.Message):
    __slots__ = ("task_id", "grant_id", "client_id", "base_version", "num_examples", "weight", "update_norm", "loss_before", "loss_after", "train_s", "bytes_down", "bytes_up", "payload_sha256")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    NUM_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_NORM_FIELD_NUMBER: _ClassVar[int]
    LOSS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    LOSS_AFTER_FIELD_NUMBER: _ClassVar[int]
    TRAIN_S_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_SHA256_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    grant_id: str
    client_id: str
    base_version: int
    num_examples: int
    weight: float
    update_norm: float
    loss_before: float
    loss_after: float
    train_s: float
    bytes_down: int
    bytes_up: int
    payload_sha256: bytes
    def __init__(self, task_id: _Optional[str] = ..., grant_id: _Optional[str] = ..., client_id: _Optional[str] = ..., base_version: _Optional[int] = ..., num_examples: _Optional[int] = ..., weight: _Optional[float] = ..., update_norm: _Optional[float] = ..., loss_before: _Optional[float] = ..., loss_after: _Optional[float] = ..., train_s: _Optional[float] = ..., bytes_down: _Optional[int] = ..., bytes_up: _Optional[int] = ..., payload_sha256: _Optional[bytes] = ...) -> None: ...

class Ended(_message.Message):
    __slots__ = ("task_id", "grant_id", "client_id", "base_version", "outcome", "reason", "reason_code", "payload_sha256", "train_s", "bytes_down", "bytes_up")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REASON_CODE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_SHA256_FIELD_NUMBER: _ClassVar[int]
    TRAIN_S_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    grant_id: str
    client_id: str
    base_version: int
    outcome: str
    reason: str
    reason_code: int
    payload_sha256: bytes
    train_s: float
    bytes_down: int
    bytes_up: int
    def __init__(self, task_id: _Optional[str] = ..., grant_id: _Optional[str] = ..., client_id: _Optional[str] = ..., base_version: _Optional[int] = ..., outcome: _Optional[str] = ..., reason: _Optional[str] = ..., reason_code: _Optional[int] = ..., payload_sha256: _Optional[bytes] = ..., train_s: _Optional[float] = ..., bytes_down: _Optional[int] = ..., bytes_up: _Optional[int] = ...) -> None: ...

class Partial(_message.Message):
    __slots__ = ("release_id", "buckets", "kept")
    RELEASE_ID_FIELD_NUMBER: _ClassVar[int]
    BUCKETS_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    release_id: str
    buckets: _containers.RepeatedCompositeFieldContainer[Bucket]
    kept: str
    def __init__(self, release_id: _Optional[str] = ..., buckets: _Optional[_Iterable[_Union[Bucket, _Mapping]]] = ..., kept: _Optional[str] = ...) -> None: ...

class Bucket(_message.Message):
    __slots__ = ("base_version", "sum", "weight", "task_ids")
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    base_version: int
    sum: bytes
    weight: float
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, base_version: _Optional[int] = ..., sum: _Optional[bytes] = ..., weight: _Optional[float] = ..., task_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("check_ins_per_s", "leased", "held")
    CHECK_INS_PER_S_FIELD_NUMBER: _ClassVar[int]
    LEASED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    check_ins_per_s: float
    leased: int
    held: int
    def __init__(self, check_ins_per_s: _Optional[float] = ..., leased: _Optional[int] = ..., held: _Optional[int] = ...) -> None: ...
