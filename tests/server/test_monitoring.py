from prometheus_client import CollectorRegistry

from server.coordination.events import TaskCompleted, TaskEnded, UpdatesRefused
from server.coordination.progress import Aggregation, JobProgress
from server.coordination.tasks import Outcome, UpdateReference
from server.coordination.versions import JobTotals
from server.monitoring import CoordinatorMetrics


def test_operators_see_outcomes_by_reason_staleness_seconds_bytes_and_version():
    registry = CollectorRegistry()
    metrics = CoordinatorMetrics(registry)
    reference = UpdateReference("t1", "d1", 3, 5, 1.0, train_s=0.5, bytes_down=700, bytes_up=800)
    metrics.on_event(TaskCompleted(0.0, reference))
    metrics.on_event(
        TaskEnded(0.0, "t2", "d2", 3, Outcome.REJECTED, "not_finite", 2105, bytes_up=60)
    )
    metrics.on_event(UpdatesRefused(0.0, 2001, 4))
    metrics.on_aggregation(Aggregation(4, 3, (0, 0, 7), 0.02, 0.4))
    metrics.on_progress(JobProgress(4, 0.61, 4, JobTotals(), 12, 5, 2))

    def value(name, **labels):
        return registry.get_sample_value(name, labels)

    assert value("flint_updates_total", outcome="succeeded", reason="aggregated") == 3
    assert value("flint_updates_total", outcome="rejected", reason="not_finite") == 1
    assert value("flint_updates_total", outcome="refused", reason="unknown_task") == 4
    assert value("flint_update_staleness_versions_bucket", le="5.0") == 2
    assert value("flint_update_staleness_versions_count") == 3
    assert value("flint_aggregation_seconds_sum") == 0.02
    assert value("flint_task_bytes_total", direction="down") == 700
    assert value("flint_task_bytes_total", direction="up") == 860
    assert value("flint_device_train_seconds_total") == 0.5
    assert value("flint_tasks_in_flight") == 12
    assert value("flint_updates_held") == 2
    assert value("flint_model_version") == 4
    assert value("flint_model_metric_ratio") == 0.61
