"""The gateway's two sockets: listening for devices, dialling the coordinator."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from device_runtime.errors import FlintError
from device_runtime.protocol import device_pb2_grpc
from server.fleet_protocol.messages import MAX_MESSAGE_BYTES
from server.gateway.service import DeviceGatewayService
from server.operations.live_certificates import live_server_credentials
from server.operations.ports import PortInUse, split_address
from server.operations.settings import ServerSettings

MAX_DEVICE_MESSAGE_BYTES = 64 * 2**20
"""Larger requests are refused by the transport, before any of our code sees them."""

# A slow phone holds a thread while it sends or receives; threads that wait cost next to nothing.
_THREADS = 64
_MOST_CALLS = 1024


class UnreadableKeys(FlintError):
    """The gateway's certificate or key is not there or cannot be used."""

    code = "FLN-1266"


def serve_devices(service: DeviceGatewayService, settings: ServerSettings) -> grpc.Server:
    """Start listening for devices, with TLS unless the deployment is insecure.

    Raises:
        PortInUse: If the address is taken.
        UnreadableKeys: If there is no usable certificate.
    """
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="device"),
        maximum_concurrent_rpcs=_MOST_CALLS,
        options=[
            ("grpc.max_receive_message_length", MAX_DEVICE_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
        ],
    )
    device_pb2_grpc.add_DeviceGatewayServicer_to_server(service, server)
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
