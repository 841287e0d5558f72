from feature_catalog.jobs import JobQueue
from server.coordination.events import SessionsEnded
from server.coordination.job_observers import CatalogProgress
from server.coordination.progress import JobProgress
from server.coordination.versions import JobTotals

PROGRESS = JobProgress(1, None, None, JobTotals(), 0, 0, 0)


def test_a_coordinator_that_comes_back_counts_attempts_on(engine):
    jobs = JobQueue(engine)
    job_id = jobs.submit("{}", "ads", None)
    first = CatalogProgress(jobs, job_id)
    first.on_event(SessionsEnded(0.0, "-v[]+^", 3))
    first.on_event(SessionsEnded(0.0, "-v[!", 1))
    first.report(PROGRESS)
    second = CatalogProgress(jobs, job_id)
    second.on_event(SessionsEnded(0.0, "-v[]+^", 4))
    second.report(PROGRESS)
    assert jobs.get(job_id).progress["sessions"] == {"-v[]+^": 7, "-v[!": 1}
