from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttestRequest(_message.Message):
    __slots__ = ("job_id", "nonce")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    nonce: bytes
    def __init__(self, job_id: _Optional[str] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class AttestReply(_message.Message):
    __slots__ = ("evidence",)
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    evidence: bytes
    def __init__(self, evidence: _Optional[bytes] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("version", "state")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    version: int
    state: bytes
    def __init__(self, version: _Optional[int] = ..., state: _Optional[bytes] = ...) -> None: ...

class BeginRequest(_message.Message):
    __slots__ = ("job_id", "budget")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    budget: Budget
    def __init__(self, job_id: _Optional[str] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ...) -> None: ...

class BeginReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PrepareRequest(_message.Message):
    __slots__ = ("job_id", "release_id", "version", "budget")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RELEASE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    release_id: str
    version: int
    budget: Budget
    def __init__(self, job_id: _Optional[str] = ..., release_id: _Optional[str] = ..., version: _Optional[int] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ...) -> None: ...

class PrepareReply(_message.Message):
    __slots__ = ("next",)
    NEXT_FIELD_NUMBER: _ClassVar[int]
    next: Budget
    def __init__(self, next: _Optional[_Union[Budget, _Mapping]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("job_id", "release_id", "receipt")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RELEASE_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    release_id: str
    receipt: Budget
    def __init__(self, job_id: _Optional[str] = ..., release_id: _Optional[str] = ..., receipt: _Optional[_Union[Budget, _Mapping]] = ...) -> None: ...

class ReleaseReply(_message.Message):
    __slots__ = ("version", "weight", "task_ids", "total", "factors")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    version: int
    weight: float
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    total: bytes
    factors: _containers.RepeatedCompositeFieldContainer[BucketFactor]
    def __init__(self, version: _Optional[int] = ..., weight: _Optional[float] = ..., task_ids: _Optional[_Iterable[str]] = ..., total: _Optional[bytes] = ..., factors: _Optional[_Iterable[_Union[BucketFactor, _Mapping]]] = ...) -> None: ...

class BucketFactor(_message.Message):
    __slots__ = ("base_version", "factor")
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    base_version: int
    factor: int
    def __init__(self, base_version: _Optional[int] = ..., factor: _Optional[int] = ...) -> None: ...
