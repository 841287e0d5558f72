"""Updates are let in a few at a time, before their bytes are read: memory stays bounded."""

import logging
from collections.abc import Callable, Iterator

import grpc

from device_runtime.protocol import device_pb2 as pb
from server.gateway.held_back import HeldBackReason
from server.gateway.intake import retry_later
from server.gateway.upload_parts import MemoryBudget, UploadFolder, WrongParts
from server.gateway.upload_slots import UploadSlots
from server.operations.memory import MemoryReturn

log = logging.getLogger(__name__)

TakeUpload = Callable[[pb.UploadRequest, grpc.ServicerContext], pb.UploadResponse]

_DISK_FULL_COME_BACK_S = 60.0


class UploadDoor:
    """The upload call as a stream of one message, which is the same on the wire, or of several.

    So a device that has to wait is told before its update was received, whatever it weighs; bytes
    on their way are held up by flow control. A payload in parts is gathered on disk, once its
    first message has proven whose it is, and comes into memory when it is its turn.
    """

    def __init__(
        self,
        take: TakeUpload,
        slots: UploadSlots,
        turned_away: Callable[[HeldBackReason], None],
        *,
        may_gather: Callable[[pb.UploadRequest], bool],
        folder: UploadFolder,
        memory: MemoryBudget,
    ) -> None:
        """Assemble.

        Args:
            take: Takes an update that was received.
            slots: Updates received at once.
            turned_away: Told of every device sent away.
            may_gather: Whether the first message of several is of a device that may send the rest;
                if not, ``take`` is given it as it is, and refuses it for its reason.
            folder: Where payloads in parts are gathered.
            memory: Payloads in parts that are in memory at once.
        """
        self._take = take
        self._slots = slots
        self._turned_away = turned_away
        self._may_gather = may_gather
        self._folder = folder
        self._memory = memory
        self._memory_return = MemoryReturn()

    def receive(
        self, requests: Iterator[pb.UploadRequest], context: grpc.ServicerContext
    ) -> pb.UploadResponse:
        """Receive one update and take it, or send its device away."""
        with self._slots.take() as taken:
            if not taken:
                return self._turn_away()
            request = next(requests, None)
            if request is None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "an upload has one message")
            return self._take(request, context)

    def receive_parts(
        self, requests: Iterator[pb.UploadRequest], context: grpc.ServicerContext
    ) -> pb.UploadResponse:
        """Receive one update in parts and take it, or send its device away."""
        with self._slots.take() as taken:
            if not taken:
                return self._turn_away()
            request = next(requests, None)
            if request is None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "an upload has a message")
            if not self._may_gather(request):
                return self._take(request, context)
            try:
                with (
                    self._folder.gather(request, requests) as file,
                    self._memory.hold(request.payload_bytes),
                ):
                    request.payload = file.read()
                    return self._take(request, context)
            except WrongParts as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except OSError as error:
                log.error("updates in parts cannot be gathered: %s", error)
                return retry_later(_DISK_FULL_COME_BACK_S)
            finally:
                self._memory_return.due()

    def _turn_away(self) -> pb.UploadResponse:
        self._turned_away(HeldBackReason.UPLOADS_BUSY)
        return retry_later(self._slots.place_s(), HeldBackReason.UPLOADS_BUSY)
