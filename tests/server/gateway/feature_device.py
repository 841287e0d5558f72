"""A device that fetches features with the real client, over channels a test may tamper with."""

from collections.abc import Callable
from pathlib import Path

import grpc

from device_runtime.device_store import DeviceStore
from device_runtime.feature_client import FeatureClient
from device_runtime.gateway_client import GatewayClient, open_channel
from device_runtime.protocol import features_pb2 as pb
from device_runtime.protocol.features_pb2_grpc import DeviceFeaturesStub
from device_runtime.request_signer import DeviceDescription, RequestSigner
from server.operations.settings import ServerSettings

APP = "com.example.feed"


class Tampering(grpc.UnaryStreamClientInterceptor, grpc.UnaryUnaryClientInterceptor):
    """Sees every request; may change or cut what an asset's stream brings."""

    def __init__(self) -> None:
        self.requests: list = []
        self.change: Callable[[int, pb.AssetChunk], pb.AssetChunk | None] = lambda _, chunk: chunk

    def intercept_unary_unary(self, continuation, client_call_details, request):
        self.requests.append(request)
        return continuation(client_call_details, request)

    def intercept_unary_stream(self, continuation, client_call_details, request):
        self.requests.append(request)
        return _Tampered(continuation(client_call_details, request), self.change)


class _Cut(grpc.RpcError):
    def code(self):
        return grpc.StatusCode.UNAVAILABLE

    def details(self):
        return "the link broke"

    def trailing_metadata(self):
        return ()


class _Tampered:
    def __init__(self, call, change) -> None:
        self._call = call
        self._change = change

    def __iter__(self):
        for number, chunk in enumerate(self._call):
            changed = self._change(number, chunk)
            if changed is None:
                raise _Cut
            yield changed

    def cancel(self):
        self._call.cancel()


class FeatureDevice:
    """One enrolled device with the real client."""

    def __init__(self, settings: ServerSettings, enrolment_token: str, folder: Path) -> None:
        self.tampering = Tampering()
        self.folder = folder
        self._plain = open_channel(settings.gateway_address, settings.ca_certificate)
        self.channel = grpc.intercept_channel(self._plain, self.tampering)
        self.store = DeviceStore(folder)
        described = DeviceDescription(APP, "Pixel 9", "2024-05", enrolment_token)
        self.signer = RequestSigner(self.store, described)
        enrolled = GatewayClient(self._plain).enrol(self.signer.enrol_request())
        self.signer.enrolled(enrolled)
        self.client = self.new_client()
        self.stub = DeviceFeaturesStub(self._plain)

    def new_client(self) -> FeatureClient:
        """As a process that was started anew has one."""
        storage = pb.DeviceStorage(free_bytes=64 * 2**30, memory_bytes=8 * 10**9)
        return FeatureClient(self.channel, self.signer, self.folder, storage=lambda: storage)

    def signed(self, request):
        """A request of any content, signed by this device."""
        self.signer.sign_feature_request(request)
        return request

    def close(self) -> None:
        self._plain.close()
        self.store.close()
