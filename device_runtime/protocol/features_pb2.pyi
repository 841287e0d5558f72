from device_runtime.protocol import device_pb2 as _device_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetManifestRequest(_message.Message):
    __slots__ = ("proof", "service", "contract_sha256", "known_manifest_sha256", "manifest_format", "storage")
    PROOF_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_SHA256_FIELD_NUMBER: _ClassVar[int]
    KNOWN_MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FORMAT_FIELD_NUMBER: _ClassVar[int]
    STORAGE_FIELD_NUMBER: _ClassVar[int]
    proof: _device_pb2.DeviceProof
    service: str
    contract_sha256: bytes
    known_manifest_sha256: bytes
    manifest_format: int
    storage: DeviceStorage
    def __init__(self, proof: _Optional[_Union[_device_pb2.DeviceProof, _Mapping]] = ..., service: _Optional[str] = ..., contract_sha256: _Optional[bytes] = ..., known_manifest_sha256: _Optional[bytes] = ..., manifest_format: _Optional[int] = ..., storage: _Optional[_Union[DeviceStorage, _Mapping]] = ...) -> None: ...

class DeviceStorage(_message.Message):
    __slots__ = ("free_bytes", "memory_bytes", "locale")
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOCALE_FIELD_NUMBER: _ClassVar[int]
    free_bytes: int
    memory_bytes: int
    locale: str
    def __init__(self, free_bytes: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., locale: _Optional[str] = ...) -> None: ...

class GetManifestResponse(_message.Message):
    __slots__ = ("manifest_sha256", "manifest_json", "server_time_ms")
    MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_JSON_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    manifest_sha256: bytes
    manifest_json: bytes
    server_time_ms: int
    def __init__(self, manifest_sha256: _Optional[bytes] = ..., manifest_json: _Optional[bytes] = ..., server_time_ms: _Optional[int] = ...) -> None: ...

class GetFeaturesRequest(_message.Message):
    __slots__ = ("proof", "service", "contract_sha256", "view", "view_version", "keys")
    PROOF_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_SHA256_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    VIEW_VERSION_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    proof: _device_pb2.DeviceProof
    service: str
    contract_sha256: bytes
    view: str
    view_version: int
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, proof: _Optional[_Union[_device_pb2.DeviceProof, _Mapping]] = ..., service: _Optional[str] = ..., contract_sha256: _Optional[bytes] = ..., view: _Optional[str] = ..., view_version: _Optional[int] = ..., keys: _Optional[_Iterable[bytes]] = ...) -> None: ...

class GetFeaturesResponse(_message.Message):
    __slots__ = ("rows", "server_time_ms")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[FeatureRow]
    server_time_ms: int
    def __init__(self, rows: _Optional[_Iterable[_Union[FeatureRow, _Mapping]]] = ..., server_time_ms: _Optional[int] = ...) -> None: ...

class FeatureRow(_message.Message):
    __slots__ = ("status", "age_s", "values")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_UNSPECIFIED: _ClassVar[FeatureRow.Status]
        PRESENT: _ClassVar[FeatureRow.Status]
        NOT_FOUND: _ClassVar[FeatureRow.Status]
        OUTSIDE_MAX_AGE: _ClassVar[FeatureRow.Status]
    STATUS_UNSPECIFIED: FeatureRow.Status
    PRESENT: FeatureRow.Status
    NOT_FOUND: FeatureRow.Status
    OUTSIDE_MAX_AGE: FeatureRow.Status
    STATUS_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    status: FeatureRow.Status
    age_s: float
    values: bytes
    def __init__(self, status: _Optional[_Union[FeatureRow.Status, str]] = ..., age_s: _Optional[float] = ..., values: _Optional[bytes] = ...) -> None: ...

class FetchAssetRequest(_message.Message):
    __slots__ = ("proof", "service", "contract_sha256", "asset_sha256", "offset", "compressions")
    PROOF_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_SHA256_FIELD_NUMBER: _ClassVar[int]
    ASSET_SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    COMPRESSIONS_FIELD_NUMBER: _ClassVar[int]
    proof: _device_pb2.DeviceProof
    service: str
    contract_sha256: bytes
    asset_sha256: bytes
    offset: int
    compressions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, proof: _Optional[_Union[_device_pb2.DeviceProof, _Mapping]] = ..., service: _Optional[str] = ..., contract_sha256: _Optional[bytes] = ..., asset_sha256: _Optional[bytes] = ..., offset: _Optional[int] = ..., compressions: _Optional[_Iterable[str]] = ...) -> None: ...

class AssetChunk(_message.Message):
    __slots__ = ("data", "total_bytes", "compression", "size_bytes")
    DATA_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    total_bytes: int
    compression: str
    size_bytes: int
    def __init__(self, data: _Optional[bytes] = ..., total_bytes: _Optional[int] = ..., compression: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...
