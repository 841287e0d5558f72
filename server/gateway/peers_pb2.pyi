from device_runtime.protocol import device_pb2 as _device_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SettleRequest(_message.Message):
    __slots__ = ("device_id", "update")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    update: _device_pb2.PendingUpdate
    def __init__(self, device_id: _Optional[str] = ..., update: _Optional[_Union[_device_pb2.PendingUpdate, _Mapping]] = ...) -> None: ...
