from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class TaskClaims(_message.Message):
    __slots__ = ("task_id", "job_id", "grant_id", "base_version", "device_id", "boot_id", "deadline_ms", "blobs")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    job_id: str
    grant_id: str
    base_version: int
    device_id: str
    boot_id: str
    deadline_ms: int
    blobs: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, task_id: _Optional[str] = ..., job_id: _Optional[str] = ..., grant_id: _Optional[str] = ..., base_version: _Optional[int] = ..., device_id: _Optional[str] = ..., boot_id: _Optional[str] = ..., deadline_ms: _Optional[int] = ..., blobs: _Optional[_Iterable[bytes]] = ...) -> None: ...

class DeviceClaims(_message.Message):
    __slots__ = ("device_id", "public_key", "app_id")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    APP_ID_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    public_key: bytes
    app_id: str
    def __init__(self, device_id: _Optional[str] = ..., public_key: _Optional[bytes] = ..., app_id: _Optional[str] = ...) -> None: ...
