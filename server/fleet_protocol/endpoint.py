"""The coordinator's listening socket for gateways: flint.fleet.v1 over mutual TLS."""

from concurrent.futures import ThreadPoolExecutor

import grpc

from device_runtime.errors import FlintError
from server.fleet_protocol import fleet_pb2_grpc
from server.fleet_protocol.gateway_fleet import GatewayFleet
from server.fleet_protocol.messages import MAX_MESSAGE_BYTES
from server.operations.live_certificates import live_server_credentials
from server.operations.settings import ServerSettings

_MAX_GATEWAYS = 64


class FleetAddressUnusable(FlintError):
    """The address gateways dial cannot be listened on."""

    code = "FLN-1205"


def serve_gateways(fleet: GatewayFleet, settings: ServerSettings) -> grpc.Server:
    """Start listening for gateways; only certificates of the deployment's own CA may attach.

    Raises:
        FleetAddressUnusable: If the port is taken.
    """
    server = grpc.server(
        ThreadPoolExecutor(_MAX_GATEWAYS, thread_name_prefix="gateway"),
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
        ],
    )
    fleet_pb2_grpc.add_FleetLinkServicer_to_server(fleet, server)
    address = settings.coordinator_address
    try:
        if settings.insecure:
            server.add_insecure_port(address)
        else:
            credentials = live_server_credentials(
                settings, "coordinator", require_client_certificate=True
            )
            server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise FleetAddressUnusable(
            f"the coordinator cannot listen on {address}; stop what uses that port or choose "
            "another with `flint up --coordinator-port`"
        ) from error
    server.start()
    return server
