"""An environment file means exactly what it says, or is refused with the place and the mend."""

import hashlib

import pytest

from server.job_file import UnknownJobKey, parse_job
from simulation.cluster_settings import ClusterSettings
from simulation.environment import (
    EnvironmentFileError,
    InvalidEnvironmentValue,
    UnknownEnvironmentKey,
    load_environment,
    parse_environment,
)
from simulation.inputs import FileInputs, UnresolvedInput
from simulation.traces.spans import SpanRules

# Section 2 of the design.
DESIGN = """
dataset: ads_proxy@3           # proxy data set and version
population: {clients: 50000, assignment: by_activity, resample: {availability: true}, seed: 1}
check_in: {period_s: 900, jitter: 0.2}      # devices pull; they are never called
availability: app_sessions_wifi_battery80@1
device_profiles: sparse_mlp_bench@2      # measured t per example, per device model
device_population: android_2026q3        # share of each device model / OS
bandwidth: puffer_like@1
executors: {kind: local}       # or {kind: ray, address: auto, count: 20}
trials: 5
"""
SMALLEST = """
dataset: clicks.parquet
availability: traces/week.parquet
device_profiles: profiles.csv
bandwidth: links.csv
"""


def refusal(text: str, kind: type[EnvironmentFileError]) -> str:
    with pytest.raises(EnvironmentFileError) as caught:
        parse_environment(text)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert message.startswith("environment.yaml: ")
    assert message.endswith(f"[{kind.code}]")
    assert "\n" not in message
    return message


def test_the_environment_of_the_design_is_read_as_written():
    environment = parse_environment(DESIGN)
    assert environment.population.clients == 50_000
    assert environment.population.assignment == "by_activity"
    assert environment.population.resample.availability
    assert not environment.population.resample.data
    assert environment.availability.source == "app_sessions_wifi_battery80@1"
    assert environment.device_population == "android_2026q3"
    assert (environment.executors.kind, environment.trials) == ("local", 5)


def test_what_is_left_out_has_the_documented_value():
    environment = parse_environment(SMALLEST)
    assert environment.population.clients is None
    assert (environment.check_in.period_s, environment.check_in.jitter) == (900, 0.2)
    assert environment.device_population is None
    assert environment.dropout is None
    assert (environment.executors.count, environment.trials) == (1, 1)
    assert environment.availability.rules == SpanRules()


def test_a_trace_may_say_what_to_do_with_its_spans():
    environment = parse_environment(
        SMALLEST.replace(
            "traces/week.parquet",
            "{source: w.parquet, only: {criteria: strict, day: 3}, merge: true, "
            "max_span_s: 86400, longer: drop, repeat_every_s: 604800}",
        )
    )
    assert environment.availability.only == {"criteria": "strict", "day": "3"}
    assert environment.availability.rules == SpanRules(True, 86_400, "drop", 604_800)


def test_json_of_an_environment_is_the_same_environment():
    environment = parse_environment(DESIGN)
    assert type(environment).model_validate_json(environment.to_json()) == environment


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trials: 0", "trials = 0 is not possible; it must be greater than or equal to 1"),
        ("trials: '5'", "trials = '5' is not possible; it must be a whole number"),
        ("check_in: {period_s: 0}", "check_in.period_s = 0 is not possible"),
        ("check_in: {jitter: 1.0}", "check_in.jitter = 1.0 is not possible"),
        ("dropout: {hazard_per_hour: .nan}", "dropout.hazard_per_hour = nan is not possible"),
        (
            "population: {assignment: by_activty}",
            "population.assignment = 'by_activty' is not possible (did you mean by_activity?)",
        ),
        ("executors: {kind: local, count: 0}", "executors.count = 0 is not possible"),
        ("training: {device: cuda}", "only torch modules are trained; add path: module"),
        ("device_population: 'a b'", "'a b' is neither a path of a .parquet or .csv file nor"),
        ("device_population: x@0", "'x@0' is neither a path"),
        ("population: 5", "population = 5 is not possible; it must be a block of keys"),
    ],
)
def test_an_impossible_value_is_refused_with_key_and_form(line, said):
    assert said in refusal(SMALLEST + line, InvalidEnvironmentValue)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("5", "availability = 5 is not possible; it must be a file path, a name@version"),
        ("{merge: true}", "availability.source is missing; add it"),
        ("{source: w.csv, max_span_s: -1}", "availability.max_span_s = -1 is not possible"),
        ("{source: w.csv, longer: clip}", "availability.longer = 'clip' is not possible"),
    ],
)
def test_an_impossible_trace_is_refused_with_key_and_form(block, said):
    text = SMALLEST.replace("traces/week.parquet", block)
    assert said in refusal(text, InvalidEnvironmentValue)


def test_a_world_for_an_app_with_its_own_data_has_no_data_set():
    assert parse_environment(SMALLEST.replace("dataset: clicks.parquet", "")).dataset is None


def test_a_missing_input_is_named():
    message = refusal("dataset: a@1\navailability: b@1\n", InvalidEnvironmentValue)
    assert "device_profiles is missing; add it. Also to mend: bandwidth." in message


def test_a_slip_in_a_key_is_named_with_the_key_meant():
    message = refusal(SMALLEST + "check_inn: {period_s: 5}", UnknownEnvironmentKey)
    assert "check_inn is not a known key (did you mean check_in?)" in message
    message = refusal(
        SMALLEST + "population: {resample: {availibility: true}}", UnknownEnvironmentKey
    )
    assert "population.resample.availibility is not a known key (did you mean availability?)" in (
        message
    )


def test_a_key_of_the_job_file_is_sent_there():
    message = refusal(SMALLEST + "strategy: {name: fedbuff}", UnknownEnvironmentKey)
    assert "strategy belongs to a job file" in message
    assert "population.seed" in refusal(SMALLEST + "seed: 3", UnknownEnvironmentKey)


def test_every_key_of_the_environment_is_sent_here_by_the_job_file():
    for key in ("dataset", "population", "check_in", "availability", "dropout", "trials"):
        with pytest.raises(UnknownJobKey, match="belongs to an environment file"):
            parse_job(f"name: x\n{key}: 1\n")


def test_executors_on_a_cluster_have_documented_defaults():
    assert parse_environment(SMALLEST).executors.cluster is None
    assert parse_environment(SMALLEST).executors.stall_timeout_s == 600.0
    smallest = parse_environment(SMALLEST + "executors: {kind: ray, count: 20}").executors
    assert smallest.cluster == ClusterSettings("auto", "shared", 300.0)
    whole = parse_environment(
        SMALLEST
        + "executors: {kind: ray, address: 'ray://head:10001', count: 20, records: sent, "
        + "ready_timeout_s: 60}"
    ).executors
    assert whole.cluster == ClusterSettings("ray://head:10001", "sent", 60.0)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("{kind: local, address: auto}", "address is of a Ray cluster, and kind is local"),
        ("{records: sent}", "records is of a Ray cluster, and kind is local; set kind: ray"),
        ("{kind: ray, address: head}", "address 'head' names no Ray cluster; write auto, local"),
        ("{kind: ray, address: 'head:99999'}", "address 'head:99999' names no Ray cluster"),
        ("{kind: ray, records: copied}", "executors.records = 'copied' is not possible"),
        ("{kind: ray, ready_timeout_s: 0}", "executors.ready_timeout_s = 0 is not possible"),
        ("{stall_timeout_s: 0}", "executors.stall_timeout_s = 0 is not possible"),
        ("{kind: rai}", "executors.kind = 'rai' is not possible (did you mean ray?)"),
    ],
)
def test_impossible_executors_are_refused_with_the_mend(block, said):
    assert said in refusal(SMALLEST + f"executors: {block}", InvalidEnvironmentValue)


def test_outputs_of_single_updates_are_named_each_once():
    assert parse_environment(SMALLEST).client_outputs == ()
    asked = parse_environment(SMALLEST + "client_outputs: [norms, losses, norms]")
    assert asked.client_outputs == ("norms", "losses")
    told = refusal(SMALLEST + "client_outputs: [norm]", InvalidEnvironmentValue)
    assert "client_outputs" in told
    assert "did you mean norms?" in told
    assert "client_outputs" in refusal(SMALLEST + "client_outputs: norms", InvalidEnvironmentValue)


def test_bad_yaml_and_missing_files_are_one_sentence(tmp_path):
    assert "is already given on line 2" in refusal(SMALLEST + "dataset: b", EnvironmentFileError)
    with pytest.raises(EnvironmentFileError, match="there is no environment file"):
        load_environment(tmp_path / "none.yaml")
    path = tmp_path / "environment.yaml"
    path.write_text(SMALLEST)
    assert load_environment(path).dataset.source == "clicks.parquet"


def test_files_are_found_beside_the_environment_and_digested(tmp_path):
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "week.csv").write_bytes(b"client_id,start_s,end_s\n1,0,5\n")
    found = FileInputs(tmp_path).resolve("availability", "traces/week.csv")
    assert found.path == (tmp_path / "traces" / "week.csv").resolve()
    assert found.sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest()
    assert found.version is None


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("none.csv", "bandwidth: there is no file none.csv"),
        ("puffer@1", "bandwidth: puffer@1 is a name of the catalog"),
    ],
)
def test_an_input_that_is_not_there_is_refused(tmp_path, reference, said):
    with pytest.raises(UnresolvedInput, match=said):
        FileInputs(tmp_path).resolve("bandwidth", reference)
