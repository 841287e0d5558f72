import pytest
from prometheus_client import CollectorRegistry

from server.coordination.events import SessionsEnded, TaskCompleted, TaskEnded
from server.coordination.progress import Aggregation, JobProgress
from server.coordination.tasks import Outcome, UpdateReference
from server.coordination.versions import JobTotals
from server.monitoring import CoordinatorMetrics


class Watched:
    """Metrics with a clock that a test sets, and their values."""

    def __init__(self):
        self.registry = CollectorRegistry()
        self.now_s = 1000.0
        self.metrics = CoordinatorMetrics(self.registry, clock=lambda: self.now_s)

    def value(self, name, **labels):
        return self.registry.get_sample_value(name, labels)

    def progress(self, outcomes, reasons=None, version=4):
        totals = JobTotals(10.0, 0, outcomes, reasons or {})
        self.metrics.on_progress(JobProgress(version, 0.61, version, totals, 12, 5, 2))

    def outcomes(self, *names):
        return [self.value("flint_tasks_total", outcome=name) for name in names]


@pytest.fixture
def watched():
    return Watched()


def test_operators_see_staleness_seconds_bytes_sessions_and_version(watched):
    metrics, value = watched.metrics, watched.value
    reference = UpdateReference("t1", "d1", 3, 5, 1.0, train_s=0.5, bytes_down=700, bytes_up=800)
    metrics.on_event(TaskCompleted(0.0, reference))
    metrics.on_event(
        TaskEnded(0.0, "t2", "d2", 3, Outcome.REJECTED, "not_finite", 2105, bytes_up=60)
    )
    metrics.on_event(SessionsEnded(0.0, "-v[]+^", 4))
    metrics.on_aggregation(Aggregation(4, 3, (0, 0, 7), 0.02, 0.4))
    watched.progress({})
    assert value("flint_update_staleness_versions_bucket", le="5.0") == 2
    assert value("flint_update_staleness_versions_count") == 3
    assert value("flint_aggregation_seconds_sum") == 0.02
    assert value("flint_task_bytes_total", direction="down") == 700
    assert value("flint_task_bytes_total", direction="up") == 860
    assert value("flint_device_train_seconds_total") == 0.5
    assert value("flint_sessions_total", shape="-v[]+^") == 4
    assert value("flint_sessions_total", shape="-v[!") == 0
    assert value("flint_tasks_in_flight") == 12
    assert value("flint_tasks_offered") == 5
    assert value("flint_updates_held") == 2
    assert value("flint_model_version") == 4
    assert value("flint_model_metric_ratio") == 0.61


def test_every_task_is_counted_however_it_ended_also_by_the_coordinators_own_decision(watched):
    watched.metrics.job_begins(epoch=1)
    watched.progress({"succeeded": 1})
    watched.progress({"succeeded": 3, "over_committed": 2, "refused": 1}, {"round_closed": 2})
    assert watched.outcomes("succeeded", "over_committed", "refused", "stale") == [3, 2, 1, 0]
    assert watched.value("flint_tasks_not_succeeded_total", reason="round_closed") == 2


def test_a_job_taken_up_again_does_not_count_what_was_counted_before(watched):
    watched.metrics.job_begins(epoch=2)
    watched.progress({"succeeded": 500})
    watched.progress({"succeeded": 503})
    assert watched.outcomes("succeeded") == [3]


def test_the_next_job_counts_on(watched):
    for _ in range(2):
        watched.metrics.job_begins(epoch=1)
        watched.progress({"succeeded": 5})
        watched.metrics.job_ends()
    assert watched.outcomes("succeeded") == [10]


def test_a_job_that_stands_still_shows_by_its_timestamps(watched):
    metrics, value = watched.metrics, watched.value
    assert value("flint_job_running") == 0
    metrics.job_begins(epoch=1)
    watched.now_s += 30
    metrics.on_aggregation(Aggregation(1, 1, (0,), 0.02, None))
    watched.now_s += 50
    metrics.on_event(SessionsEnded(0.0, "-v[!", 1))
    assert value("flint_job_running") == 1
    assert value("flint_version_stored_timestamp_seconds") == 1030
    assert value("flint_event_timestamp_seconds") == 1080
    assert value("flint_round_seconds_sum") == 30
    metrics.job_ends()
    assert value("flint_job_running") == 0
    assert value("flint_tasks_in_flight") == 0


def test_gateways_are_counted_when_they_are_asked_for(watched):
    attached = [1]
    watched.metrics.watch_gateways(lambda: attached[0])
    attached[0] = 3
    assert watched.value("flint_gateways_connected") == 3
