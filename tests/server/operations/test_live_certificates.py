"""A server whose certificate is renewed while it serves: nobody who is connected notices."""

import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from cryptography import x509

from server.operations.live_certificates import live_server_credentials
from server.operations.settings import ServerSettings
from server.operations.tls import ensure_keys, renew_certificates


class Echo(grpc.GenericRpcHandler):
    """Answers every message of a stream with itself."""

    def service(self, details):
        return grpc.stream_stream_rpc_method_handler(lambda messages, _: messages)


def serve(settings: ServerSettings, role: str, **options: bool) -> tuple[grpc.Server, int]:
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Echo(),))
    credentials = live_server_credentials(settings, role, **options)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, port


@pytest.fixture
def port(settings) -> Iterator[int]:
    ensure_keys(settings)
    server, port = serve(settings, "gateway")
    yield port
    server.stop(None).wait()


def served_serial(port: int) -> int:
    pem = ssl.get_server_certificate(("127.0.0.1", port))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def stored_serial(settings: ServerSettings, role: str = "gateway") -> int:
    pem = settings.certificate(role).read_bytes()
    return x509.load_pem_x509_certificate(pem).serial_number


class Conversation:
    """One stream on one connection."""

    def __init__(self, settings: ServerSettings, port: int, *pair: bytes) -> None:
        trust = settings.ca_certificate.read_bytes()
        self.channel = grpc.secure_channel(
            f"127.0.0.1:{port}",
            grpc.ssl_channel_credentials(trust, *pair),
            # Else gRPC would share one connection between the tests' channels.
            options=[("grpc.use_local_subchannel_pool", 1)],
        )
        self._said: list[bytes] = []
        self._answers = self.channel.stream_stream("/flint.test/Echo")(self._ask(), timeout=20)

    def _ask(self):
        import queue

        self._questions: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        return iter(self._questions.get, None)

    def say(self, message: bytes) -> bytes:
        self._questions.put(message)
        return next(self._answers)

    def close(self) -> None:
        self._questions.put(None)
        self.channel.close()


def test_a_renewed_certificate_serves_new_connections_while_old_ones_go_on(settings, port):
    conversation = Conversation(settings, port)
    assert conversation.say(b"before") == b"before"
    assert served_serial(port) == stored_serial(settings)
    first = stored_serial(settings)
    renew_certificates(settings, ["gateway"])
    assert stored_serial(settings) != first
    assert served_serial(port) == stored_serial(settings)
    assert conversation.say(b"after") == b"after"
    newcomer = Conversation(settings, port)
    assert newcomer.say(b"new") == b"new"
    conversation.close()
    newcomer.close()


def test_a_certificate_that_does_not_fit_its_key_is_not_taken_up(settings, port):
    first = served_serial(port)
    key = settings.private_key("gateway").read_bytes()
    renew_certificates(settings, ["gateway"])
    certificate = settings.certificate("gateway").read_bytes()
    settings.private_key("gateway").write_bytes(key)  # as if only one had been written
    assert served_serial(port) == first
    settings.certificate("gateway").write_text("no certificate")
    assert served_serial(port) == first
    settings.certificate("gateway").unlink()
    assert served_serial(port) == first
    settings.certificate("gateway").write_bytes(certificate)
    renew_certificates(settings)
    assert served_serial(port) == stored_serial(settings) != first


def test_the_coordinator_lets_gateways_in_with_old_and_renewed_certificates(settings):
    ensure_keys(settings)
    server, port = serve(settings, "coordinator", require_client_certificate=True)
    try:

        def pair() -> tuple[bytes, bytes]:
            return (
                settings.private_key("gateway").read_bytes(),
                settings.certificate("gateway").read_bytes(),
            )

        old = Conversation(settings, port, *pair())
        assert old.say(b"1") == b"1"
        renew_certificates(settings, ["ca", "coordinator", "gateway"])
        new = Conversation(settings, port, *pair())
        assert new.say(b"2") == b"2"
        assert old.say(b"3") == b"3"
        stranger = Conversation(settings, port)
        with pytest.raises(grpc.RpcError):
            stranger.say(b"4")
        for conversation in (old, new, stranger):
            conversation.close()
    finally:
        server.stop(None).wait()


def test_a_missing_certificate_is_told_at_the_start(settings):
    with pytest.raises(FileNotFoundError):
        live_server_credentials(settings, "gateway")
