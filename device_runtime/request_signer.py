"""A device's requests to its gateway, signed with its key, on the gateway's clock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from device_runtime import identity
from device_runtime.compression import KNOWN_CODECS
from device_runtime.device_store import DeviceStore, Enrolment, PendingUpdate
from device_runtime.errors import FlintError
from device_runtime.protocol import device_pb2 as pb
from device_runtime.steady_time import steady_time

RUNTIME_VERSION = 3
"""What this runtime can do: 2 seals updates, 3 joins features, where a task asks for it."""

_KEPT_CLOCK_ERROR_MS = 1000


class NotEnrolled(FlintError):
    """A device that has neither enrolled nor been given a token to enrol with."""

    code = "FLN-1409"


class EnrolmentRefused(FlintError):
    """The gateway does not take the device's enrolment token."""

    code = "FLN-1414"


@dataclass(frozen=True, slots=True)
class DeviceDescription:
    """What a device says of itself when it enrols.

    Attributes:
        app_id: Host app, e.g. ``"com.example.mail"``.
        device_model: E.g. ``"Pixel 8"``.
        os_release: E.g. ``"2024-05"``.
        enrolment_token: Lets it enrol; None when it has enrolled before.
    """

    app_id: str
    device_model: str
    os_release: str
    enrolment_token: str | None = None


class RequestSigner:
    """Builds requests as one enrolled device."""

    def __init__(
        self,
        store: DeviceStore,
        description: DeviceDescription,
        clock: Callable[[], float] = steady_time,
    ) -> None:
        """Read key, enrolment and clock offset from the store.

        Args:
            store: Of the device.
            description: For enrolment.
            clock: Seconds since the epoch, on this device.
        """
        self._store = store
        self._description = description
        self._clock = clock
        self._enrolment = store.enrolment()
        self._kept_offset_ms = self._offset_ms = store.clock_offset_ms()

    @property
    def is_enrolled(self) -> bool:
        """Whether a gateway has enrolled this device."""
        return self._enrolment is not None

    @property
    def device_id(self) -> str:
        """This device's name by its own key, whatever a gateway calls it: enclaves count names."""
        return identity.device_id_of(self._store.key.public_key_der)

    @property
    def app_id(self) -> str:
        """Of the host app."""
        return self._description.app_id

    @property
    def can_enrol(self) -> bool:
        """Whether there is a token to enrol with, for the first time or again."""
        return self._description.enrolment_token is not None

    def server_time_ms(self) -> int:
        """The gateway's clock, as far as this device knows."""
        return round(self._clock() * 1000) + self._offset_ms

    def heard_time(self, server_time_ms: int) -> None:
        """Note the gateway's clock; 0 says nothing."""
        if server_time_ms == 0:
            return
        self._offset_ms = server_time_ms - round(self._clock() * 1000)
        if abs(self._offset_ms - self._kept_offset_ms) > _KEPT_CLOCK_ERROR_MS:
            self._kept_offset_ms = self._offset_ms
            self._store.save_clock_offset_ms(self._offset_ms)

    def mends_clock(self, server_time_ms: int) -> bool:
        """Note the gateway's clock; whether that is news enough to ask again what it refused."""
        before_ms = self._offset_ms
        self.heard_time(server_time_ms)
        return abs(self._offset_ms - before_ms) > _KEPT_CLOCK_ERROR_MS

    def enrol_request(self) -> pb.EnrolRequest:
        """Ask to enrol this device's key.

        Raises:
            NotEnrolled: If there is no token to enrol with.
        """
        if self._description.enrolment_token is None:
            raise NotEnrolled(
                "this device is not enrolled and has no enrolment token; "
                "give it one with --enrolment-token-file"
            )
        request = pb.EnrolRequest(
            enrolment_token=self._description.enrolment_token,
            app_id=self._description.app_id,
            device_model=self._description.device_model,
            os_release=self._description.os_release,
        )
        identity.sign_enrol(self._store.key, request)
        return request

    def enrolled(self, response: pb.EnrolResponse) -> None:
        """Keep what the gateway gave."""
        self._enrolment = Enrolment(response.device_id, response.credential)
        self._store.save_enrolment(self._enrolment)
        self.heard_time(response.server_time_ms)

    def check_in_request(
        self, satisfied_policy_sha256: bytes, pending: Sequence[PendingUpdate]
    ) -> pb.CheckInRequest:
        """Ask for work and for what became of ``pending``; an empty digest asks for no work yet."""
        request = pb.CheckInRequest(
            runtime_version=RUNTIME_VERSION,
            satisfied_policy_sha256=satisfied_policy_sha256,
            pending=[
                pb.PendingUpdate(
                    task_id=update.task_id,
                    payload_sha256=update.payload_sha256,
                    task_token=update.task_token,
                )
                for update in pending
            ],
            codecs=KNOWN_CODECS,
        )
        enrolment = self._enrolment_or_refuse()
        identity.sign_check_in(
            self._store.key,
            request,
            device_id=enrolment.device_id,
            credential=enrolment.credential,
            timestamp_ms=self.server_time_ms(),
        )
        return request

    def upload_request(
        self, update: PendingUpdate, payload: bytes, session_course: str = ""
    ) -> pb.UploadRequest:
        """Hand in a kept update; ``session_course`` says how the attempt went so far."""
        request = pb.UploadRequest(
            task_token=update.task_token,
            payload_sha256=update.payload_sha256,
            contract_sha256=update.contract_sha256,
            payload=payload,
            session_course=session_course,
            cost=pb.DeviceCost(
                train_s=update.train_s,
                cpu_s=update.cpu_s,
                peak_memory_bytes=update.peak_memory_bytes,
                bytes_down=update.bytes_down,
                bytes_up=len(payload),
            ),
        )
        enrolment = self._enrolment_or_refuse()
        identity.sign_upload(
            self._store.key,
            request,
            device_id=enrolment.device_id,
            credential=enrolment.credential,
            timestamp_ms=self.server_time_ms(),
        )
        return request

    def sign_feature_request(self, request: identity.FeatureRequest) -> None:
        """Sign what is asked of the feature catalog; it must be set already.

        Raises:
            NotEnrolled: If no gateway has enrolled this device.
        """
        enrolment = self._enrolment_or_refuse()
        identity.sign_feature_request(
            self._store.key,
            request,
            device_id=enrolment.device_id,
            credential=enrolment.credential,
            timestamp_ms=self.server_time_ms(),
        )

    def _enrolment_or_refuse(self) -> Enrolment:
        if self._enrolment is None:
            raise NotEnrolled("this device is not enrolled yet; let it enrol first")
        return self._enrolment
