"""What of a deployment an operator must see though no process counts it, read when scraped."""

import os
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import NullPool, create_engine, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from feature_catalog.audit_log import AuditAction
from feature_catalog.schema import AuditRecord, JobRecord
from server.operations.settings import ServerSettings
from server.operations.supervisor import read_status
from server.operations.tls import read_certificates

_ANSWER_WITHIN_S = 2
_STATUSES = ("queued", "running", "finished", "stopped", "failed")


class DatabaseProbe:
    """Asks the database on a connection of its own, and does not wait long for the answer."""

    def __init__(self, database_url: str) -> None:
        self._engine = create_engine(
            make_url(database_url).set(drivername="postgresql+psycopg2"),
            poolclass=NullPool,
            connect_args={
                "connect_timeout": _ANSWER_WITHIN_S,
                "options": f"-c statement_timeout={_ANSWER_WITHIN_S * 1000}",
            },
        )

    def is_reachable(self) -> bool:
        """Whether it answers now."""
        try:
            with self._engine.connect() as connection:
                connection.execute(select(1))
        except SQLAlchemyError:
            return False
        return True

    def jobs_and_backup(self) -> tuple[dict[str, int], float] | None:
        """Jobs by status, and when the last backup was made (0: never); None without an answer."""
        by_status = select(JobRecord.status, func.count().label("jobs")).group_by(JobRecord.status)
        newest = select(func.extract("epoch", func.max(AuditRecord.at))).where(
            AuditRecord.action == str(AuditAction.BACKUP_MADE)
        )
        try:
            with self._engine.connect() as connection:
                jobs = {row.status: row.jobs for row in connection.execute(by_status)}
                made = connection.execute(newest).scalar_one()
        except SQLAlchemyError:
            return None
        return dict.fromkeys(_STATUSES, 0) | jobs, float(made or 0.0)


class DeploymentCollector(Collector):
    """Database, jobs, certificates, disks and processes of one deployment."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._database = DatabaseProbe(settings.database_url)
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not ask the database."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Everything, as it is now."""
        yield from self._database_and_jobs()
        yield self._certificates()
        yield from self._disks()
        yield from self._processes()
        build = GaugeMetricFamily("flint_build_info", "Always 1.", labels=["version"])
        build.add_metric([version("flint-on-flower")], 1)
        yield build

    def _database_and_jobs(self) -> Iterator[Metric]:
        found = self._database.jobs_and_backup()
        yield GaugeMetricFamily(
            "flint_database_reachable",
            "Whether the coordinator's database answers.",
            value=float(found is not None),
        )
        if found is None:
            return
        jobs = GaugeMetricFamily("flint_jobs", "Jobs by status.", labels=["status"])
        for status, count in found[0].items():
            jobs.add_metric([status], count)
        yield jobs
        yield GaugeMetricFamily(
            "flint_backup_timestamp_seconds",
            "When `flint backup` last finished; 0 if it never did.",
            value=found[1],
        )

    def _certificates(self) -> Metric:
        family = GaugeMetricFamily(
            "flint_certificate_expiry_timestamp_seconds",
            "When a certificate ends; none without TLS.",
            labels=["role"],
        )
        for facts in read_certificates(self._settings):
            family.add_metric([facts.role], facts.valid_until.timestamp())
        return family

    def _disks(self) -> Iterator[Metric]:
        free = GaugeMetricFamily(
            "flint_free_bytes", "Left where data lie on this machine.", labels=["of"]
        )
        size = GaugeMetricFamily("flint_disk_bytes", "Size of that disk.", labels=["of"])
        places = {"home": self._settings.home}
        scheme, _, path = self._settings.blob_url.partition("://")
        if scheme == "file":
            places["blobs"] = Path(path)
        for name, place in places.items():
            there = next((p for p in (place, *place.parents) if p.exists()), Path("/"))
            usage = shutil.disk_usage(there)
            free.add_metric([name], usage.free)
            size.add_metric([name], usage.total)
        yield free
        yield size

    def _processes(self) -> Iterator[Metric]:
        labels = ["process"]
        up = GaugeMetricFamily("flint_process_up", "Whether a process serves.", labels=labels)
        restarts = CounterMetricFamily(
            "flint_process_restarts", "Times it was started again.", labels=labels
        )
        memory = GaugeMetricFamily(
            "flint_process_resident_bytes", "Memory a process holds.", labels=labels
        )
        files = GaugeMetricFamily(
            "flint_process_open_files", "Files and sockets it has open.", labels=labels
        )
        for process in read_status(self._settings.home).processes:
            up.add_metric([process.name], float(process.state == "ready"))
            restarts.add_metric([process.name], process.restarts)
            proc = Path(f"/proc/{process.pid}")
            try:
                resident = int((proc / "statm").read_text().split()[1]) * self._page_bytes
                opened = sum(1 for _ in (proc / "fd").iterdir())
            except OSError:  # it has just ended, or this is no Linux
                continue
            memory.add_metric([process.name], resident)
            files.add_metric([process.name], opened)
        yield from (up, restarts, memory, files)
