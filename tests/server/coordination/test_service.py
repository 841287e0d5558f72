"""The coordinator process against a real database that breaks off."""

import queue
import threading

import grpc
import pytest
from sqlalchemy import NullPool, create_engine, text

from feature_catalog.database import DatabaseUnreachable
from feature_catalog.jobs import JobQueue
from server.coordination.service import Coordinator
from server.fleet_protocol import fleet_pb2 as pb
from server.fleet_protocol import fleet_pb2_grpc
from server.operations.settings import ServerSettings
from tests.ports import free_port

pytestmark = pytest.mark.integration
PATIENCE_S = 20.0


@pytest.fixture
def settings(tmp_path, database_url):
    address = f"127.0.0.1:{free_port()}"
    blobs = f"file://{tmp_path}/blobs"
    return ServerSettings(
        tmp_path, database_url, blobs, "", address, "", 0, free_port(), insecure=True
    )


class Running:
    """A coordinator in a thread."""

    def __init__(self, settings):
        self.coordinator = Coordinator(settings)
        self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            self.coordinator.run()
        except Exception as error:
            self.error = error


@pytest.fixture
def running(settings):
    running = Running(settings)
    yield running
    running.coordinator.stop()
    running.thread.join(PATIENCE_S)


def test_a_coordinator_whose_database_breaks_off_ends_and_lets_its_gateways_go(
    running, settings, postgres_server
):
    outgoing = queue.Queue()
    outgoing.put(pb.GatewayMessage(hello=pb.Hello(gateway_id="g", boot_id="b")))
    channel = grpc.insecure_channel(settings.coordinator_address)
    stream = fleet_pb2_grpc.FleetLinkStub(channel).Attach(
        iter(outgoing.get, None), wait_for_ready=True, timeout=PATIENCE_S
    )
    while running.coordinator._gateways.gateways() == 0:
        assert running.thread.is_alive()
    admin = create_engine(
        postgres_server.url("postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        name = settings.database_url.rpartition("/")[2].partition("?")[0]
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": name},
        )
    running.thread.join(PATIENCE_S)
    assert isinstance(running.error, DatabaseUnreachable)
    with pytest.raises(grpc.RpcError) as ended:
        list(stream)
    assert ended.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
    outgoing.put(None)
    channel.close()


def test_a_job_stopped_in_the_moment_it_was_to_start_leaves_the_coordinator_up(settings, engine):
    jobs = JobQueue(engine)
    jobs.submit("{}", "first", None)
    coordinator = Coordinator(settings)
    row = jobs.next_queued()
    answers = iter([row])

    def next_queued():
        jobs.request_stop(row.job_id)
        found = next(answers, None)
        if found is None:
            coordinator.stop()
        return found

    coordinator._jobs.next_queued = next_queued
    coordinator.run()
    assert jobs.get(row.job_id).status == "stopped"
