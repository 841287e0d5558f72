"""``flint submit``, ``jobs``, ``job`` and ``stop``."""

from pathlib import Path
from typing import Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_json, print_table

JobIdArgument = Annotated[str, typer.Argument(help="Job id, as `flint jobs` shows it.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("submit")(submit)
    app.command("jobs")(jobs)
    app.command("job")(job)
    app.command("stop")(stop)


def submit(
    file: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="Job file.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Then watch it until it ends.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a job file and queue the job.

    One job runs at a time; others wait in order. docs/job-file.md explains every key.

    Example: flint submit examples/job.yaml --follow
    """
    from server.job_file import load_job

    read = load_job(file)  # before the server is looked for: a slip in the file is told at once
    from flint.deployment import Deployment
    from flint.submission import submit as submit_job

    directory = resolve_home(home)
    submission = submit_job(Deployment.attach(directory), read, note)
    if as_json:
        run_id = str(submission.flower_run_id)
        print_json({"job_id": submission.job_id, "flower_run_id": run_id})
    else:
        waits = f", after {submission.jobs_before} other(s)" if submission.jobs_before else ""
        print(f"{submission.job_id} is queued{waits}; watch it: flint job {submission.job_id} -f")
    if follow:
        job(submission.job_id, follow=True, home=directory, as_json=as_json)


def jobs(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List jobs, newest first.

    Example: flint jobs --json
    """
    from flint.deployment import Deployment
    from flint.job_view import describe

    rows = Deployment.attach(resolve_home(home)).jobs.list()[::-1]
    if as_json:
        print_json([describe(row) for row in rows])
        return
    print_table(
        ("job", "name", "status", "version", "metric", "updates", "submitted", "detail"),
        [
            (
                row.job_id,
                row.name,
                row.status,
                row.progress.get("version"),
                row.progress.get("metric"),
                row.progress.get("updates"),
                row.submitted_at,
                row.detail or "",
            )
            for row in rows
        ],
        empty="no jobs yet; submit one with `flint submit JOB.yaml`",
    )


def job(
    job_id: JobIdArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep watching until the job ends.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one job, or follow it to its end.

    Version, metric, updates a second, tasks in flight, outcomes by reason.

    With --json --follow, one JSON line whenever something changed. Followed to its end, a job that
    failed gives exit code 2.

    Example: flint job j-3f2a --follow
    """
    from flint.deployment import Deployment
    from flint.job_view import describe, follow_job, print_job

    queue = Deployment.attach(resolve_home(home)).jobs
    if not follow:
        row = queue.get(job_id)
        if as_json:
            print_json(describe(row))
        else:
            print_job(row)
        return
    last = follow_job(queue, job_id, as_json=as_json)
    if last.status == "failed":
        raise typer.Exit(2)


def stop(job_id: JobIdArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Ask a job to stop.

    What it has learnt so far stays in the model store.

    Example: flint stop j-3f2a
    """
    from flint.deployment import Deployment
    from flint.submission import stop as stop_job

    row = stop_job(Deployment.attach(resolve_home(home)), job_id)
    if as_json:
        print_json({"job_id": job_id, "status": row.status})
    elif row.status == "running":
        print(f"{job_id} is asked to stop; its newest version stays in the model store")
    else:
        print(f"{job_id} is {row.status}: {row.detail}")
