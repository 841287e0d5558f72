"""The gateway's two sockets: listening for devices, dialling the coordinator."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from device_runtime.errors import FlintError
from device_runtime.protocol import device_pb2 as pb
from device_runtime.protocol.features_pb2_grpc import (
    DeviceFeaturesServicer,
    add_DeviceFeaturesServicer_to_server,
)
from server.fleet_protocol.messages import MAX_MESSAGE_BYTES
from server.gateway.device_calls import DeviceCalls
from server.gateway.upload_door import UploadDoor
from server.operations.live_certificates import live_server_credentials
from server.operations.ports import PortInUse, split_address
from server.operations.settings import ServerSettings

MAX_DEVICE_MESSAGE_BYTES = 16 * 2**20
"""Larger requests are refused by the transport, before any of our code sees them.

Whatever the model weighs: an update that does not fit comes in parts.
"""

# A slow phone holds a thread while it sends or receives; threads that wait cost next to nothing.
# More of them than transfers at once: check-ins must find one.
_THREADS = 104
_MOST_CALLS = 1024

_WINDOW_BYTES = 512 * 1024
"""What may come in on one call before it is read: 5 MB/s over a link with 0.1 s of delay."""


class UnreadableKeys(FlintError):
    """The gateway's certificate or key is not there or cannot be used."""

    code = "FLN-1266"


def serve_devices(
    service: DeviceCalls,
    door: UploadDoor,
    features: DeviceFeaturesServicer,
    settings: ServerSettings,
) -> grpc.Server:
    """Start listening for devices, with TLS unless the deployment is insecure.

    Several gateway processes listen on one port; the kernel gives each its share of connections,
    and a dead one's share to the others.

    Args:
        service: Answers calls.
        door: Lets uploads in.
        features: Answers what is asked of the feature catalog.
        settings: Of the deployment.

    Raises:
        PortInUse: If the address is taken.
        UnreadableKeys: If there is no usable certificate.
    """
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="device"),
        maximum_concurrent_rpcs=_MOST_CALLS,
        options=[
            ("grpc.max_receive_message_length", MAX_DEVICE_MESSAGE_BYTES),
            ("grpc.so_reuseport", int(settings.gateways > 1)),
            # What a stream may send unasked: without this it grows with the link, for every stream.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
        ],
    )
    server.add_generic_rpc_handlers((_handlers(service, door),))
    add_DeviceFeaturesServicer_to_server(features, server)
    address = settings.gateway_address
    try:
        if settings.insecure:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, _credentials(settings))
    except RuntimeError as error:
        raise PortInUse(
            f"the gateway cannot listen on {address}: port {split_address(address)[1]} is in use "
            "or the address is not this machine's; stop what uses it, or choose another with "
            "--gateway-port"
        ) from error
    server.start()
    return server


def _handlers(service: DeviceCalls, door: UploadDoor) -> grpc.GenericRpcHandler:
    """The calls of flint.device.v1 as the generated code would register them, but for the door."""
    return grpc.method_handlers_generic_handler(
        "flint.device.v1.DeviceGateway",
        {
            "Enrol": grpc.unary_unary_rpc_method_handler(
                service.Enrol, pb.EnrolRequest.FromString, pb.EnrolResponse.SerializeToString
            ),
            "CheckIn": grpc.unary_unary_rpc_method_handler(
                service.CheckIn, pb.CheckInRequest.FromString, pb.CheckInResponse.SerializeToString
            ),
            "FetchBlob": grpc.unary_stream_rpc_method_handler(
                service.FetchBlob,
                pb.FetchBlobRequest.FromString,  # answers in bytes
            ),
            "Upload": grpc.stream_unary_rpc_method_handler(
                door.receive, pb.UploadRequest.FromString, pb.UploadResponse.SerializeToString
            ),
            "UploadInParts": grpc.stream_unary_rpc_method_handler(
                door.receive_parts,
                pb.UploadRequest.FromString,
                pb.UploadResponse.SerializeToString,
            ),
            "Attest": grpc.unary_unary_rpc_method_handler(
                service.Attest, pb.AttestRequest.FromString, pb.Evidence.SerializeToString
            ),
            "ReportOutcome": grpc.unary_unary_rpc_method_handler(
                service.ReportOutcome,
                pb.ReportOutcomeRequest.FromString,
                pb.ReportOutcomeResponse.SerializeToString,
            ),
        },
    )


def coordinator_channel(settings: ServerSettings) -> grpc.Channel:
    """A channel to the coordinator, with the gateway's own certificate unless insecure.

    Raises:
        UnreadableKeys: If there is no usable certificate.
    """
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # The link has its own back-off; a channel that shared gRPC's would wait on top of it.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if settings.insecure:
        return grpc.insecure_channel(settings.coordinator_address, options)
    credentials = grpc.ssl_channel_credentials(
        _read(settings.ca_certificate),
        _read(settings.private_key("gateway")),
        _read(settings.certificate("gateway")),
    )
    return grpc.secure_channel(settings.coordinator_address, credentials, options)


def _credentials(settings: ServerSettings) -> grpc.ServerCredentials:
    try:
        return live_server_credentials(settings, "gateway")
    except OSError as error:
        raise _unreadable(error) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> UnreadableKeys:
    return UnreadableKeys(
        f"cannot read {error.filename} ({error.strerror}); start the server with `flint up`, which "
        "makes keys and certificates, or with --insecure on one machine"
    )
