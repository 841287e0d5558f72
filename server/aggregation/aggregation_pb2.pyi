from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HelloRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("boot_id",)
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    def __init__(self, boot_id: _Optional[str] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OpenRequest(_message.Message):
    __slots__ = ("boot_id", "job_id", "job_json", "model_spec_json")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_JSON_FIELD_NUMBER: _ClassVar[int]
    MODEL_SPEC_JSON_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    job_id: str
    job_json: str
    model_spec_json: str
    def __init__(self, boot_id: _Optional[str] = ..., job_id: _Optional[str] = ..., job_json: _Optional[str] = ..., model_spec_json: _Optional[str] = ...) -> None: ...

class FoldRequest(_message.Message):
    __slots__ = ("boot_id", "task_id", "client_id", "base_version", "payload_sha256", "train_s", "bytes_down", "bytes_up", "payload")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_SHA256_FIELD_NUMBER: _ClassVar[int]
    TRAIN_S_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    task_id: str
    client_id: str
    base_version: int
    payload_sha256: bytes
    train_s: float
    bytes_down: int
    bytes_up: int
    payload: bytes
    def __init__(self, boot_id: _Optional[str] = ..., task_id: _Optional[str] = ..., client_id: _Optional[str] = ..., base_version: _Optional[int] = ..., payload_sha256: _Optional[bytes] = ..., train_s: _Optional[float] = ..., bytes_down: _Optional[int] = ..., bytes_up: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...

class FoldReply(_message.Message):
    __slots__ = ("reference", "rejected")
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    reference: Reference
    rejected: Rejected
    def __init__(self, reference: _Optional[_Union[Reference, _Mapping]] = ..., rejected: _Optional[_Union[Rejected, _Mapping]] = ...) -> None: ...

class Rejected(_message.Message):
    __slots__ = ("reason_code", "detail")
    REASON_CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    reason_code: int
    detail: str
    def __init__(self, reason_code: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class Reference(_message.Message):
    __slots__ = ("task_id", "client_id", "base_version", "num_examples", "weight", "update_norm", "loss_before", "loss_after", "train_s", "bytes_down", "bytes_up", "payload_sha256")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
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
    def __init__(self, task_id: _Optional[str] = ..., client_id: _Optional[str] = ..., base_version: _Optional[int] = ..., num_examples: _Optional[int] = ..., weight: _Optional[float] = ..., update_norm: _Optional[float] = ..., loss_before: _Optional[float] = ..., loss_after: _Optional[float] = ..., train_s: _Optional[float] = ..., bytes_down: _Optional[int] = ..., bytes_up: _Optional[int] = ..., payload_sha256: _Optional[bytes] = ...) -> None: ...

class ReduceRequest(_message.Message):
    __slots__ = ("boot_id", "release_id", "base_versions")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    RELEASE_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    release_id: str
    base_versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, boot_id: _Optional[str] = ..., release_id: _Optional[str] = ..., base_versions: _Optional[_Iterable[int]] = ...) -> None: ...

class PartialSum(_message.Message):
    __slots__ = ("base_version", "total", "weight", "task_ids")
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    base_version: int
    total: bytes
    weight: float
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, base_version: _Optional[int] = ..., total: _Optional[bytes] = ..., weight: _Optional[float] = ..., task_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("boot_id", "release_id")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    RELEASE_ID_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    release_id: str
    def __init__(self, boot_id: _Optional[str] = ..., release_id: _Optional[str] = ...) -> None: ...

class DropRequest(_message.Message):
    __slots__ = ("boot_id", "base_version")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    base_version: int
    def __init__(self, boot_id: _Optional[str] = ..., base_version: _Optional[int] = ...) -> None: ...

class DropReply(_message.Message):
    __slots__ = ("task_ids",)
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, task_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class StateRequest(_message.Message):
    __slots__ = ("boot_id",)
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    def __init__(self, boot_id: _Optional[str] = ...) -> None: ...

class FrozenReply(_message.Message):
    __slots__ = ("release_ids",)
    RELEASE_IDS_FIELD_NUMBER: _ClassVar[int]
    release_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, release_ids: _Optional[_Iterable[str]] = ...) -> None: ...
