from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeviceProof(_message.Message):
    __slots__ = ("device_id", "timestamp_ms", "signature", "credential")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    timestamp_ms: int
    signature: bytes
    credential: bytes
    def __init__(self, device_id: _Optional[str] = ..., timestamp_ms: _Optional[int] = ..., signature: _Optional[bytes] = ..., credential: _Optional[bytes] = ...) -> None: ...

class EnrolRequest(_message.Message):
    __slots__ = ("enrolment_token", "public_key", "app_id", "device_model", "os_release", "proof_of_possession")
    ENROLMENT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    APP_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_MODEL_FIELD_NUMBER: _ClassVar[int]
    OS_RELEASE_FIELD_NUMBER: _ClassVar[int]
    PROOF_OF_POSSESSION_FIELD_NUMBER: _ClassVar[int]
    enrolment_token: str
    public_key: bytes
    app_id: str
    device_model: str
    os_release: str
    proof_of_possession: bytes
    def __init__(self, enrolment_token: _Optional[str] = ..., public_key: _Optional[bytes] = ..., app_id: _Optional[str] = ..., device_model: _Optional[str] = ..., os_release: _Optional[str] = ..., proof_of_possession: _Optional[bytes] = ...) -> None: ...

class EnrolResponse(_message.Message):
    __slots__ = ("device_id", "credential", "server_time_ms")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    credential: bytes
    server_time_ms: int
    def __init__(self, device_id: _Optional[str] = ..., credential: _Optional[bytes] = ..., server_time_ms: _Optional[int] = ...) -> None: ...

class CheckInRequest(_message.Message):
    __slots__ = ("proof", "runtime_version", "satisfied_policy_sha256", "pending", "codecs")
    PROOF_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_VERSION_FIELD_NUMBER: _ClassVar[int]
    SATISFIED_POLICY_SHA256_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    proof: DeviceProof
    runtime_version: int
    satisfied_policy_sha256: bytes
    pending: _containers.RepeatedCompositeFieldContainer[PendingUpdate]
    codecs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, proof: _Optional[_Union[DeviceProof, _Mapping]] = ..., runtime_version: _Optional[int] = ..., satisfied_policy_sha256: _Optional[bytes] = ..., pending: _Optional[_Iterable[_Union[PendingUpdate, _Mapping]]] = ..., codecs: _Optional[_Iterable[str]] = ...) -> None: ...

class PendingUpdate(_message.Message):
    __slots__ = ("task_id", "payload_sha256", "task_token")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_SHA256_FIELD_NUMBER: _ClassVar[int]
    TASK_TOKEN_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    payload_sha256: bytes
    task_token: bytes
    def __init__(self, task_id: _Optional[str] = ..., payload_sha256: _Optional[bytes] = ..., task_token: _Optional[bytes] = ...) -> None: ...

class Settlement(_message.Message):
    __slots__ = ("task_id", "state", "reason")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Settlement.State]
        HELD: _ClassVar[Settlement.State]
        COMMITTED: _ClassVar[Settlement.State]
        DROPPED: _ClassVar[Settlement.State]
        UPLOAD_AGAIN: _ClassVar[Settlement.State]
    STATE_UNSPECIFIED: Settlement.State
    HELD: Settlement.State
    COMMITTED: Settlement.State
    DROPPED: Settlement.State
    UPLOAD_AGAIN: Settlement.State
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    state: Settlement.State
    reason: str
    def __init__(self, task_id: _Optional[str] = ..., state: _Optional[_Union[Settlement.State, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class CheckInResponse(_message.Message):
    __slots__ = ("settlements", "task", "come_back_after_s", "policy", "server_time_ms", "held_back_code")
    SETTLEMENTS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    COME_BACK_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    HELD_BACK_CODE_FIELD_NUMBER: _ClassVar[int]
    settlements: _containers.RepeatedCompositeFieldContainer[Settlement]
    task: Task
    come_back_after_s: float
    policy: ParticipationPolicy
    server_time_ms: int
    held_back_code: int
    def __init__(self, settlements: _Optional[_Iterable[_Union[Settlement, _Mapping]]] = ..., task: _Optional[_Union[Task, _Mapping]] = ..., come_back_after_s: _Optional[float] = ..., policy: _Optional[_Union[ParticipationPolicy, _Mapping]] = ..., server_time_ms: _Optional[int] = ..., held_back_code: _Optional[int] = ...) -> None: ...

class ParticipationPolicy(_message.Message):
    __slots__ = ("policy_sha256", "policy_json")
    POLICY_SHA256_FIELD_NUMBER: _ClassVar[int]
    POLICY_JSON_FIELD_NUMBER: _ClassVar[int]
    policy_sha256: bytes
    policy_json: str
    def __init__(self, policy_sha256: _Optional[bytes] = ..., policy_json: _Optional[str] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("task_id", "token", "job_id", "base_version", "parameters_sha256", "artifact_sha256", "manifest_sha256", "contract_sha256", "plan", "deadline_ms", "secure_aggregation", "features")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_SHA256_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_SHA256_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_SHA256_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    SECURE_AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    token: bytes
    job_id: str
    base_version: int
    parameters_sha256: bytes
    artifact_sha256: bytes
    manifest_sha256: bytes
    contract_sha256: bytes
    plan: TrainingPlan
    deadline_ms: int
    secure_aggregation: SecureAggregation
    features: TaskFeatures
    def __init__(self, task_id: _Optional[str] = ..., token: _Optional[bytes] = ..., job_id: _Optional[str] = ..., base_version: _Optional[int] = ..., parameters_sha256: _Optional[bytes] = ..., artifact_sha256: _Optional[bytes] = ..., manifest_sha256: _Optional[bytes] = ..., contract_sha256: _Optional[bytes] = ..., plan: _Optional[_Union[TrainingPlan, _Mapping]] = ..., deadline_ms: _Optional[int] = ..., secure_aggregation: _Optional[_Union[SecureAggregation, _Mapping]] = ..., features: _Optional[_Union[TaskFeatures, _Mapping]] = ...) -> None: ...

class TaskFeatures(_message.Message):
    __slots__ = ("service", "contract_sha256", "reads", "places", "ids", "hash_seed")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_SHA256_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    HASH_SEED_FIELD_NUMBER: _ClassVar[int]
    service: str
    contract_sha256: bytes
    reads: str
    places: int
    ids: int
    hash_seed: int
    def __init__(self, service: _Optional[str] = ..., contract_sha256: _Optional[bytes] = ..., reads: _Optional[str] = ..., places: _Optional[int] = ..., ids: _Optional[int] = ..., hash_seed: _Optional[int] = ...) -> None: ...

class SecureAggregation(_message.Message):
    __slots__ = ("release_policy_json", "allowed_measurements")
    RELEASE_POLICY_JSON_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_MEASUREMENTS_FIELD_NUMBER: _ClassVar[int]
    release_policy_json: str
    allowed_measurements: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, release_policy_json: _Optional[str] = ..., allowed_measurements: _Optional[_Iterable[bytes]] = ...) -> None: ...

class AttestRequest(_message.Message):
    __slots__ = ("task_token", "nonce", "job_id")
    TASK_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    task_token: bytes
    nonce: bytes
    job_id: str
    def __init__(self, task_token: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., job_id: _Optional[str] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("provider", "document", "enclave_key")
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    ENCLAVE_KEY_FIELD_NUMBER: _ClassVar[int]
    provider: str
    document: bytes
    enclave_key: bytes
    def __init__(self, provider: _Optional[str] = ..., document: _Optional[bytes] = ..., enclave_key: _Optional[bytes] = ...) -> None: ...

class EnclaveKey(_message.Message):
    __slots__ = ("public_key", "job_id", "boot_id", "release_policy_sha256")
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    RELEASE_POLICY_SHA256_FIELD_NUMBER: _ClassVar[int]
    public_key: bytes
    job_id: str
    boot_id: str
    release_policy_sha256: bytes
    def __init__(self, public_key: _Optional[bytes] = ..., job_id: _Optional[str] = ..., boot_id: _Optional[str] = ..., release_policy_sha256: _Optional[bytes] = ...) -> None: ...

class SealedFor(_message.Message):
    __slots__ = ("task_id", "job_id", "device_id", "base_version", "codec")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    job_id: str
    device_id: str
    base_version: int
    codec: str
    def __init__(self, task_id: _Optional[str] = ..., job_id: _Optional[str] = ..., device_id: _Optional[str] = ..., base_version: _Optional[int] = ..., codec: _Optional[str] = ...) -> None: ...

class SealedUpdate(_message.Message):
    __slots__ = ("enclave_key_sha256", "sealed", "masked")
    ENCLAVE_KEY_SHA256_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    MASKED_FIELD_NUMBER: _ClassVar[int]
    enclave_key_sha256: bytes
    sealed: bytes
    masked: bytes
    def __init__(self, enclave_key_sha256: _Optional[bytes] = ..., sealed: _Optional[bytes] = ..., masked: _Optional[bytes] = ...) -> None: ...

class SealedContent(_message.Message):
    __slots__ = ("app_id", "update", "pad_seed", "never_sent")
    APP_ID_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    PAD_SEED_FIELD_NUMBER: _ClassVar[int]
    NEVER_SENT_FIELD_NUMBER: _ClassVar[int]
    app_id: str
    update: bytes
    pad_seed: bytes
    never_sent: bool
    def __init__(self, app_id: _Optional[str] = ..., update: _Optional[bytes] = ..., pad_seed: _Optional[bytes] = ..., never_sent: _Optional[bool] = ...) -> None: ...

class TrainingPlan(_message.Message):
    __slots__ = ("local_epochs", "batch_size", "max_records", "learning_rate", "proximal_mu", "shuffle_seed", "codec")
    LOCAL_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_RECORDS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    PROXIMAL_MU_FIELD_NUMBER: _ClassVar[int]
    SHUFFLE_SEED_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    local_epochs: int
    batch_size: int
    max_records: int
    learning_rate: float
    proximal_mu: float
    shuffle_seed: int
    codec: UpdateCodec
    def __init__(self, local_epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., max_records: _Optional[int] = ..., learning_rate: _Optional[float] = ..., proximal_mu: _Optional[float] = ..., shuffle_seed: _Optional[int] = ..., codec: _Optional[_Union[UpdateCodec, _Mapping]] = ...) -> None: ...

class UpdateCodec(_message.Message):
    __slots__ = ("name", "fraction", "values", "error_feedback")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    name: str
    fraction: float
    values: str
    error_feedback: bool
    def __init__(self, name: _Optional[str] = ..., fraction: _Optional[float] = ..., values: _Optional[str] = ..., error_feedback: _Optional[bool] = ...) -> None: ...

class FetchBlobRequest(_message.Message):
    __slots__ = ("task_token", "blob_sha256", "offset")
    TASK_TOKEN_FIELD_NUMBER: _ClassVar[int]
    BLOB_SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    task_token: bytes
    blob_sha256: bytes
    offset: int
    def __init__(self, task_token: _Optional[bytes] = ..., blob_sha256: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class BlobChunk(_message.Message):
    __slots__ = ("data", "total_bytes")
    DATA_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    total_bytes: int
    def __init__(self, data: _Optional[bytes] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class UploadRequest(_message.Message):
    __slots__ = ("proof", "task_token", "payload_sha256", "contract_sha256", "payload", "cost", "session_course", "payload_bytes")
    PROOF_FIELD_NUMBER: _ClassVar[int]
    TASK_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_SHA256_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_SHA256_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    SESSION_COURSE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    proof: DeviceProof
    task_token: bytes
    payload_sha256: bytes
    contract_sha256: bytes
    payload: bytes
    cost: DeviceCost
    session_course: str
    payload_bytes: int
    def __init__(self, proof: _Optional[_Union[DeviceProof, _Mapping]] = ..., task_token: _Optional[bytes] = ..., payload_sha256: _Optional[bytes] = ..., contract_sha256: _Optional[bytes] = ..., payload: _Optional[bytes] = ..., cost: _Optional[_Union[DeviceCost, _Mapping]] = ..., session_course: _Optional[str] = ..., payload_bytes: _Optional[int] = ...) -> None: ...

class UploadResponse(_message.Message):
    __slots__ = ("verdict", "reason_code", "reason", "come_back_after_s", "server_time_ms")
    class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VERDICT_UNSPECIFIED: _ClassVar[UploadResponse.Verdict]
        ACCEPTED: _ClassVar[UploadResponse.Verdict]
        COMMITTED: _ClassVar[UploadResponse.Verdict]
        STALE: _ClassVar[UploadResponse.Verdict]
        OVER_COMMITTED: _ClassVar[UploadResponse.Verdict]
        REJECTED: _ClassVar[UploadResponse.Verdict]
        RETRY_LATER: _ClassVar[UploadResponse.Verdict]
    VERDICT_UNSPECIFIED: UploadResponse.Verdict
    ACCEPTED: UploadResponse.Verdict
    COMMITTED: UploadResponse.Verdict
    STALE: UploadResponse.Verdict
    OVER_COMMITTED: UploadResponse.Verdict
    REJECTED: UploadResponse.Verdict
    RETRY_LATER: UploadResponse.Verdict
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COME_BACK_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    verdict: UploadResponse.Verdict
    reason_code: int
    reason: str
    come_back_after_s: float
    server_time_ms: int
    def __init__(self, verdict: _Optional[_Union[UploadResponse.Verdict, str]] = ..., reason_code: _Optional[int] = ..., reason: _Optional[str] = ..., come_back_after_s: _Optional[float] = ..., server_time_ms: _Optional[int] = ...) -> None: ...

class ReportOutcomeRequest(_message.Message):
    __slots__ = ("task_token", "outcome", "reason", "cost", "session_course")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[ReportOutcomeRequest.Outcome]
        INTERRUPTED: _ClassVar[ReportOutcomeRequest.Outcome]
        FAILED: _ClassVar[ReportOutcomeRequest.Outcome]
        DECLINED: _ClassVar[ReportOutcomeRequest.Outcome]
    OUTCOME_UNSPECIFIED: ReportOutcomeRequest.Outcome
    INTERRUPTED: ReportOutcomeRequest.Outcome
    FAILED: ReportOutcomeRequest.Outcome
    DECLINED: ReportOutcomeRequest.Outcome
    TASK_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    SESSION_COURSE_FIELD_NUMBER: _ClassVar[int]
    task_token: bytes
    outcome: ReportOutcomeRequest.Outcome
    reason: str
    cost: DeviceCost
    session_course: str
    def __init__(self, task_token: _Optional[bytes] = ..., outcome: _Optional[_Union[ReportOutcomeRequest.Outcome, str]] = ..., reason: _Optional[str] = ..., cost: _Optional[_Union[DeviceCost, _Mapping]] = ..., session_course: _Optional[str] = ...) -> None: ...

class ReportOutcomeResponse(_message.Message):
    __slots__ = ("come_back_after_s",)
    COME_BACK_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    come_back_after_s: float
    def __init__(self, come_back_after_s: _Optional[float] = ...) -> None: ...

class DeviceCost(_message.Message):
    __slots__ = ("train_s", "cpu_s", "peak_memory_bytes", "bytes_down", "bytes_up")
    TRAIN_S_FIELD_NUMBER: _ClassVar[int]
    CPU_S_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    train_s: float
    cpu_s: float
    peak_memory_bytes: int
    bytes_down: int
    bytes_up: int
    def __init__(self, train_s: _Optional[float] = ..., cpu_s: _Optional[float] = ..., peak_memory_bytes: _Optional[int] = ..., bytes_down: _Optional[int] = ..., bytes_up: _Optional[int] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "dtype", "shape", "data", "scales", "gaps")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SCALES_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    scales: bytes
    gaps: bytes
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ..., scales: _Optional[bytes] = ..., gaps: _Optional[bytes] = ...) -> None: ...

class TensorList(_message.Message):
    __slots__ = ("tensors",)
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("delta", "num_examples", "loss_before", "loss_after")
    DELTA_FIELD_NUMBER: _ClassVar[int]
    NUM_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    LOSS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    LOSS_AFTER_FIELD_NUMBER: _ClassVar[int]
    delta: TensorList
    num_examples: int
    loss_before: float
    loss_after: float
    def __init__(self, delta: _Optional[_Union[TensorList, _Mapping]] = ..., num_examples: _Optional[int] = ..., loss_before: _Optional[float] = ..., loss_after: _Optional[float] = ...) -> None: ...
