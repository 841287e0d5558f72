"""Updates are let in a few at a time, before their bytes are read: memory stays bounded."""

from collections.abc import Callable, Iterator

import grpc

from device_runtime.protocol import device_pb2 as pb
from server.gateway.held_back import HeldBackReason
from server.gateway.intake import retry_later
from server.gateway.upload_slots import UploadSlots

TakeUpload = Callable[[pb.UploadRequest, grpc.ServicerContext], pb.UploadResponse]


class UploadDoor:
    """The upload call as a stream of one message, which is the same on the wire.

    So a device that has to wait is told before its update was received, whatever it weighs; bytes
    on their way are held up by flow control.
    """

    def __init__(
        self, take: TakeUpload, slots: UploadSlots, turned_away: Callable[[HeldBackReason], None]
    ) -> None:
        """Assemble.

        Args:
            take: Takes an update that was received.
            slots: Updates received at once.
            turned_away: Told of every device sent away.
        """
        self._take = take
        self._slots = slots
        self._turned_away = turned_away

    def receive(
        self, requests: Iterator[pb.UploadRequest], context: grpc.ServicerContext
    ) -> pb.UploadResponse:
        """Receive one update and take it, or send its device away."""
        with self._slots.take() as taken:
            if not taken:
                self._turned_away(HeldBackReason.UPLOADS_BUSY)
                return retry_later(self._slots.place_s(), HeldBackReason.UPLOADS_BUSY)
            request = next(requests, None)
            if request is None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "an upload has one message")
            return self._take(request, context)
