"""A build of availability, and a task set against it, gathered for a report."""

from dataclasses import dataclass, replace
from pathlib import Path

from device_runtime.errors import FlintError
from flint.named_inputs import NamedInputs
from flint.reports.availability.evidence import AvailabilityEvidence
from flint.reports.wording import said_bytes
from modeling.zoo import get_model
from simulation.availability.completion import (
    AvailableSpans,
    Completion,
    completion,
    population_of_clients,
    spans_of_histogram,
    spans_of_trace,
)
from simulation.availability.fairness import group_shifts
from simulation.availability.kept_facts import (
    FACTS_KEY,
    STATISTICS_KEY,
    KeptFacts,
    kept_facts,
    read_kept_facts,
)
from simulation.durations import TaskWork
from simulation.environment import is_file_reference
from simulation.traces.bandwidth import read_bandwidth
from simulation.traces.device_profiles import (
    DevicePopulation,
    DeviceProfiles,
    read_device_population,
    read_device_profiles,
)
from simulation.traces.session_files import read_sessions
from simulation.traces.spans import SpanRules

_FLOAT32_BYTES = 4


class IncompleteTask(FlintError):
    """A task that cannot be set against a trace, since part of its cost is not told."""

    code = "FLN-2723"


class FactsOfAnotherBuild(FlintError):
    """A facts file that was not written by the build whose trace is named."""

    code = "FLN-2724"


@dataclass(frozen=True, slots=True)
class AskedTask:
    """A task as the command line tells it; None: not told.

    Attributes:
        model: A registered model, of which parameters go both ways.
        update_bytes: The same, told outright.
        profiles: Speeds of device models.
        bandwidth: Links.
        population: Devices of spans that name none.
        records: Of a client, in each epoch.
    """

    model: str | None = None
    update_bytes: int | None = None
    profiles: str | None = None
    bandwidth: str | None = None
    population: str | None = None
    records: int = 500
    epochs: int = 1
    seed: int = 0


def gather_evidence(
    reference: str,
    facts_file: Path | None,
    task: AskedTask,
    inputs: NamedInputs,
    *,
    least_ratio: float,
) -> AvailabilityEvidence:
    """Read a build by the name of its trace, or by its facts file, and compute what is asked.

    Args:
        facts_file: Of a build that is named by its trace, where the catalog keeps none.

    Raises:
        IncompleteTask: If a task is asked for without its bytes, speeds or links.
        NotBuilt: If there are no facts of a build.
    """
    facts = read_facts(reference, inputs, facts_file=facts_file)
    spans = _spans(reference, facts, inputs)
    profiles = None
    if task.profiles is not None:
        profiles = read_device_profiles(inputs.find(task.profiles, "device_profiles"))
    not_told: dict[str, str] = {}
    if facts.clients is None:
        not_told["devices"] = (
            "What is known of single devices is not kept with this trace: name the file that "
            "the build wrote (--facts FILE), or build again."
        )
    found, said = _set_against(task, facts, spans, profiles, inputs)
    if found is None:
        not_told["task"] = (
            "No task was set against it: name --model (or --update-bytes), --profiles and "
            "--bandwidth."
        )
    if profiles is None:
        not_told["device tier"] = "Tiers of speed need --profiles."
    shifts = (
        group_shifts(
            facts.clients, facts.criteria.criteria, profiles=profiles, least_ratio=least_ratio
        )
        if facts.clients is not None
        else ()
    )
    name = Path(reference).stem if is_file_reference(reference) else reference
    return AvailabilityEvidence(name, facts, least_ratio, found, said, shifts, not_told)


def read_facts(reference: str, inputs: NamedInputs, *, facts_file: Path | None = None) -> KeptFacts:
    """Facts of a build, by the name of its trace or by its facts file.

    Args:
        facts_file: What is known of single devices, for a trace that is named; None: as the
            catalog keeps it.

    Raises:
        NotBuilt: If there are no facts of a build.
        FactsOfAnotherBuild: If ``facts_file`` is of another one.
    """
    if is_file_reference(reference):
        return read_kept_facts(Path(reference).expanduser())
    row = inputs.row(reference, "availability")
    facts = kept_facts(row.statistics.get(STATISTICS_KEY), source=row.reference)
    if facts_file is None:
        digest = row.statistics.get(FACTS_KEY)
        if digest is None:
            return facts
        facts_file = inputs.blob(bytes.fromhex(digest), "facts.parquet")
    beside = read_kept_facts(facts_file)
    if beside.criteria != facts.criteria:
        raise FactsOfAnotherBuild(
            f"{facts_file} is of another build than {row.reference}; name the file that its "
            "--facts wrote, or the facts file alone"
        )
    return replace(facts, clients=beside.clients)


def _spans(reference: str, facts: KeptFacts, inputs: NamedInputs) -> AvailableSpans:
    if is_file_reference(reference):
        return spans_of_histogram(facts.criteria.lengths)
    path = inputs.find(reference, "availability")
    return spans_of_trace(read_sessions(path, SpanRules(merge=True)))


def _set_against(
    task: AskedTask,
    facts: KeptFacts,
    spans: AvailableSpans,
    profiles: DeviceProfiles | None,
    inputs: NamedInputs,
) -> tuple[Completion | None, str]:
    if task.model is None and task.update_bytes is None:
        return None, ""
    missing = [
        option
        for option, value in (("--profiles", profiles), ("--bandwidth", task.bandwidth))
        if value is None
    ]
    if profiles is None or task.bandwidth is None:
        raise IncompleteTask(
            f"how long a task takes also depends on {' and '.join(missing)}; give "
            f"{'them' if len(missing) > 1 else 'it'} too (a name of the catalog, or a file)"
        )
    if task.update_bytes is not None:
        network_bytes = task.update_bytes
    else:
        network_bytes = _FLOAT32_BYTES * get_model(str(task.model)).parameter_count
    work = TaskWork(task.epochs, task.records, network_bytes, network_bytes)
    found = completion(
        spans,
        work,
        profiles,
        read_bandwidth(inputs.find(task.bandwidth, "bandwidth")),
        records=task.records,
        population=_population(task, facts, inputs),
        seed=task.seed,
    )
    epochs = "1 epoch" if task.epochs == 1 else f"{task.epochs} epochs"
    what = f"model {task.model}, " if task.model is not None else ""
    return found, (
        f"{what}{task.records:,} records a device, {epochs}, {said_bytes(network_bytes)} down and "
        f"{said_bytes(network_bytes)} up"
    )


def _population(task: AskedTask, facts: KeptFacts, inputs: NamedInputs) -> DevicePopulation | None:
    if task.population is not None:
        return read_device_population(inputs.find(task.population, "device_population"))
    if facts.clients is None:
        return None
    return population_of_clients(facts.clients.device_models, facts.clients.spans)
