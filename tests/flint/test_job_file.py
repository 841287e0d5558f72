"""A job file means exactly what it says, or is refused with the place and the mend."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.compression import UpdateCodec
from server.job import FedAvgSettings, FedBuffSettings, Job
from server.job_file import (
    InvalidJobValue,
    JobFeatureNotBuilt,
    JobFileError,
    UnknownJobKey,
    load_job,
    parse_job,
)

EXAMPLES = Path(__file__).parents[2] / "examples"

# Section 2 of the design, less the keys that come alive later.
DESIGN_JOB = """
name: ads-ctr
model: sparse_mlp              # registered model; its artefacts are versioned in the model store
client: {local_epochs: 1, batch_size: 20, max_records: 500,
         optimizer: {name: sgd, learning_rate: 0.05,
                     schedule: {name: exponential, decay: 0.98, every: 10}}}
strategy: {name: fedbuff, buffer_size: 20, concurrency: 100, max_staleness: 10, weighting: uniform,
           staleness_weight: {name: polynomial, exponent: 0.5},
           server_optimizer: {name: sgd, learning_rate: 1.0}}
initial_version: ads_central@latest
participation:
  device: {min_os_release: 2019-09, max_train_s: 120, max_memory_mb: 50}
  state:  {wifi: true, min_battery: 0.8, foreground: true, allowed_hours: "00:00-08:00"}
  user:   {min_account_age_days: 30, min_hours_between_participations: 12}
privacy:
  robustness: {max_update_norm: 5.0}
evaluation: {every: 5, metric: auprc, mode: central, dataset: ads_test}
stop: {max_aggregations: 500, target: 0.41, max_hours: 100}
selection: {name: arrival}
seed: 7
"""
FEDAVG = """{name: fedavg, cohort_size: 100, over_commitment: 1.3, round_deadline_s: 600,
  min_updates: 80, weighting: examples, max_examples: 200,
  server_optimizer: {name: adam, learning_rate: 0.01}}"""
SMALLEST = {
    "name": "smallest",
    "model": "tiny_mlp",
    "client": {"optimizer": {"learning_rate": 0.1}},
    "strategy": {"name": "fedbuff", "buffer_size": 2, "concurrency": 4},
    "stop": {"max_updates": 10},
}


def with_value(path: str, value: object) -> str:
    """The smallest job as YAML, with one value set."""
    raw = yaml.safe_load(yaml.safe_dump(SMALLEST))
    block = raw
    *parents, last = path.split(".")
    for key in parents:
        block = block.setdefault(key, {})
    block[last] = value
    return yaml.safe_dump(raw)


def refusal(text: str) -> JobFileError:
    with pytest.raises(JobFileError) as caught:
        parse_job(text)
    message = str(caught.value)
    assert message.startswith("job.yaml: ")
    assert message.endswith(f"[{caught.value.code}]")
    assert "\n" not in message
    return caught.value


def test_the_job_of_the_design_is_read_as_written():
    job = parse_job(DESIGN_JOB)
    assert isinstance(job.strategy, FedBuffSettings)
    assert job.client.optimizer.learning_rate_at(25) == pytest.approx(0.05 * 0.98**2)
    assert job.participation.policy().allowed_hours == "00:00-08:00"
    device = job.participation.device
    assert (device.min_os_release, device.max_train_s, device.max_memory_mb) == ("2019-09", 120, 50)
    assert job.privacy.robustness.max_update_norm == 5.0
    assert (job.stop.max_aggregations, job.stop.target, job.seed) == (500, 0.41, 7)


def test_the_designs_synchronous_strategy_is_read_as_written():
    job = parse_job(with_value("strategy", yaml.safe_load(FEDAVG)))
    assert isinstance(job.strategy, FedAvgSettings)
    assert job.strategy.weight(1_000) == 200.0
    assert job.strategy.server_optimizer.name == "adam"


def test_a_job_survives_its_own_json():
    job = parse_job(DESIGN_JOB)
    assert Job.model_validate_json(job.to_json()) == job


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("privacy.differential_privacy", {"noise_multiplier": 0.8}),
        ("privacy.differential_privacy", None),
        ("privacy.robustness.rule", "trimmed_mean"),
        ("budget.device_hours", 700),
        ("evaluation", {"dataset": "d", "mode": "federated"}),
    ],
)
def test_a_feature_not_built_yet_is_refused_with_its_path_and_value(path, value):
    error = refusal(with_value(path, value))
    assert isinstance(error, JobFeatureNotBuilt)
    expected = "evaluation.mode = 'federated'" if path == "evaluation" else f"{path} = "
    assert expected in str(error)
    assert "not built yet" in str(error)


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("strategy.bufer_size", "buffer_size"),
        ("client.optimizer.learning_rte", "learning_rate"),
        ("client.local_epoch", "local_epochs"),
        ("participation.state.wfi", "wifi"),
        ("participation.device.max_trane_s", "max_train_s"),
        ("strategy.server_optimizer", None),
        ("evaluate", "evaluation"),
        ("selction", "selection"),
    ],
)
def test_a_slip_of_the_pen_is_answered_with_the_nearest_known_key(path, near):
    if near is None:
        path, near = "strategy.server_optimizer.momentun", "momentum"
        text = with_value("strategy.server_optimizer", {"name": "sgd", "momentun": 0.9})
    else:
        text = with_value(path, 1)
    error = refusal(text)
    assert isinstance(error, UnknownJobKey)
    assert f"{path} is not a known key (did you mean {near}?). Known keys: " in str(error)


def test_a_compression_block_is_the_codec_devices_are_asked_for():
    assert parse_job(yaml.safe_dump(SMALLEST)).client.compression.codec is None
    job = parse_job(with_value("client.compression", {"name": "int8"}))
    assert job.client.compression.codec == UpdateCodec("int8")
    job = parse_job(with_value("client.compression", {"name": "top_k", "fraction": 0.01}))
    assert job.client.compression.codec == UpdateCodec("top_k", 0.01, "float16", True)
    assert Job.model_validate_json(job.to_json()) == job
    old = Job.model_validate(SMALLEST).model_dump(mode="json")
    del old["client"]["compression"]
    assert Job.model_validate(old).client.compression.codec is None


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"name": "gzip"}, "client.compression.name = 'gzip' is not known"),
        ({"name": "top_k"}, "client.compression.fraction is missing"),
        ({"name": "top_k", "fraction": 0.6}, "client.compression.fraction = 0.6"),
        (
            {"name": "top_k", "fraction": 0.1, "values": "bf16"},
            "client.compression.values = 'bf16'",
        ),
        ({"name": "int8", "error_feedback": True}, "client.compression.error_feedback"),
        ({"fraction": 0.1}, "client.compression.name is missing"),
    ],
)
def test_a_compression_that_means_nothing_is_refused(block, said):
    assert said in str(refusal(with_value("client.compression", block)))


def test_measurements_are_not_written_by_hand():
    error = refusal(with_value("participation.device.measured", {"Pixel 9": {"train_s": 1.0}}))
    assert isinstance(error, UnknownJobKey)
    assert "participation.device.measured is written by FLINT" in str(error)
    slip = refusal(with_value("participation.device.max_trian_s", 3))
    assert "Known keys: max_memory_mb, max_train_s, min_os_release." in str(slip)


@pytest.mark.parametrize("key", ["population", "availability", "bandwidth", "executors", "trials"])
def test_an_environment_key_is_sent_to_the_environment_file(key):
    error = refusal(with_value(key, 1))
    assert isinstance(error, UnknownJobKey)
    assert f"{key} belongs to an environment file" in str(error)


def test_a_data_set_at_the_top_is_sent_to_the_evaluation():
    assert "evaluation.dataset" in str(refusal(with_value("dataset", "ads@3")))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("client.batch_size", -3, "client.batch_size = -3"),
        ("client.batch_size", "20", "client.batch_size = '20' is not possible; it must be a whole"),
        ("client.batch_size", 20.5, "a whole number"),
        ("client.batch_size", True, "client.batch_size = true"),
        ("client.optimizer.learning_rate", 0, "greater than 0"),
        ("client.optimizer.learning_rate", float("nan"), "client.optimizer.learning_rate = nan"),
        ("client.optimizer.learning_rate", float("inf"), "a finite number"),
        ("client", None, "client = null is not possible; it must be a block of keys"),
        ("strategy", [1], "strategy = [1] is not possible; it must be a block of keys"),
        (
            "strategy.name",
            "fedbuf",
            "strategy.name = 'fedbuf' is not known (did you mean fedbuff?)",
        ),
        ("strategy.weighting", "example", "(did you mean examples?)"),
        ("strategy.server_optimizer", {"name": "adm", "learning_rate": 1}, "did you mean adam?"),
        ("strategy.server_optimizer", {"learning_rate": 1.0}, "server_optimizer.name is missing"),
        (
            "model",
            "sparse_mpl",
            "'sparse_mpl' is not a registered model (did you mean sparse_mlp?)",
        ),
        ("model", 3, "model = 3 is not possible; it must be text"),
        ("name", "Ads CTR!", "name = 'Ads CTR!' is not possible; it must be a short name"),
        ("participation.state.allowed_hours", "9-17", 'local hours such as "22:00-06:00"'),
        ("participation.state.min_battery", 80, "less than or equal to 1"),
        ("participation.device.min_os_release", "2019-13", 'a month such as "2019-09"'),
        ("participation.device.min_os_release", 2019, "min_os_release = 2019 is not possible"),
        ("participation.device.max_train_s", 0, "greater than 0"),
        ("participation.device.max_memory_mb", "50", "max_memory_mb = '50'"),
        ("stop", {}, "the job would never end"),
        ("stop.target", 0.4, "stop.target needs an evaluation block"),
        ("seed", 2**70, "seed = 1180591620717411303424"),
    ],
)
def test_an_impossible_value_is_refused_with_path_value_and_what_it_must_be(path, value, said):
    error = refusal(with_value(path, value))
    assert isinstance(error, InvalidJobValue)
    assert said in str(error)


def test_a_missing_key_is_named():
    raw = {key: value for key, value in SMALLEST.items() if key != "model"}
    assert "model is missing; add it" in str(refusal(yaml.safe_dump(raw)))


def test_a_slip_in_a_required_key_is_told_as_the_slip_first():
    raw = yaml.safe_load(yaml.safe_dump(SMALLEST))
    raw["strategy"]["bufer_size"] = raw["strategy"].pop("buffer_size")
    error = refusal(yaml.safe_dump(raw))
    assert isinstance(error, UnknownJobKey)
    assert "Also to mend: strategy.buffer_size." in str(error)


def test_all_problems_of_a_file_are_listed_at_once():
    raw = yaml.safe_load(with_value("client.batch_size", 0))
    raw["budget"] = {"device_hours": 1}
    raw["zzz"] = 1
    error = refusal(yaml.safe_dump(raw))
    assert isinstance(error, JobFeatureNotBuilt)
    assert "Also to mend: zzz, client.batch_size." in str(error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("- a\n- b\n", "the file is a list"),
        ("just words", "the file is a single value"),
        ("name: [a\n", "line 2"),
        ("name:\n\t- a\n", "line 2, column 1"),
        ("name: a\nmodel: b\nname: c\n", "line 3: key 'name' is already given on line 1; keep one"),
        ("client: {a: 1, a: 2}\n", "key 'a' is already given"),
        ("name: a\n---\nname: b\n", "expected a single document"),
        ("1: a\n", "key 1 is not a word"),
        ("? [a, b]\n: c\n", "is not a word"),
        ("a: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        ("a: " + "[" * 500, "nested deeper"),
        ("seed: " + "9" * 5000, "a number of 5000 digits"),
        ("a: &a [x]\nb: [" + "*a, " * 60 + "]\n", "aliases"),
        ("a: &a [*a]\n", "once aliases (*name) are expanded"),
        ("a: \x07\n", "special characters are not allowed"),
        ("a: 1\n" * 20_000, "at most 65536"),
    ],
)
def test_what_is_no_single_plain_mapping_is_refused_with_the_line(text, said):
    error = refusal(text)
    assert type(error) is JobFileError
    assert said in str(error)


def test_a_bomb_of_aliases_is_refused_before_it_grows():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 5)}]" for i in range(1, 10)]
    assert "10000 values" in str(refusal("\n".join(lines)))


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-3", 0.001), ("1.e2", 100.0), (".5", 0.5), ("0012", 12.0), ("+3", 3.0)],
)
def test_numbers_are_read_as_yaml_1_2_writes_them(written, value):
    text = yaml.safe_dump(SMALLEST).replace("learning_rate: 0.1", f"learning_rate: {written}")
    assert parse_job(text).client.optimizer.learning_rate == value


@pytest.mark.parametrize("written", ["yes", "on", "1:30", "0x10", "1_000"])
def test_words_that_old_yaml_took_for_numbers_stay_words(written):
    text = yaml.safe_dump(SMALLEST).replace("learning_rate: 0.1", f"learning_rate: {written}")
    assert f"learning_rate = '{written}'" in str(refusal(text))


def test_a_missing_file_is_one_sentence(tmp_path: Path):
    with pytest.raises(JobFileError, match=r"there is no job file .*nowhere\.yaml"):
        load_job(tmp_path / "nowhere.yaml")


def test_a_directory_or_a_binary_file_is_one_sentence(tmp_path: Path):
    with pytest.raises(JobFileError, match="cannot read"):
        load_job(tmp_path)
    binary = tmp_path / "model.tflite"
    binary.write_bytes(b"\x1c\x00\x00\x00TFL3\xff\xfe")
    with pytest.raises(JobFileError, match="not UTF-8 text"):
        load_job(binary)
    binary.write_bytes(b"a: 1\n" * 100_000)
    with pytest.raises(JobFileError, match="larger than 65536 bytes"):
        load_job(binary)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda p: p.name)
def test_every_example_is_a_job(example):
    assert isinstance(load_job(example), Job)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
places = st.sampled_from(
    [
        "name",
        "model",
        "client",
        "client.optimizer",
        "client.optimizer.schedule",
        "strategy",
        "strategy.name",
        "strategy.server_optimizer",
        "strategy.staleness_weight",
        "participation.state",
        "privacy.robustness",
        "evaluation",
        "stop",
        "selection",
        "whatever",
    ]
)


@settings(max_examples=150)
@given(place=places, value=json_values)
def test_any_value_anywhere_gives_a_job_or_one_sentence(place, value):
    try:
        job = parse_job(with_value(place, value))
    except JobFileError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert Job.model_validate_json(job.to_json()) == job


@settings(max_examples=150)
@given(text=st.text(max_size=200))
def test_any_text_gives_one_sentence(text):
    with pytest.raises(JobFileError) as caught:
        parse_job(text)
    assert len(str(caught.value).splitlines()) == 1


SECURE = {"mode": "enclave", "release_threshold": 20, "allowed_measurements": ["ab" * 32]}


def secure(**changed):
    raw = yaml.safe_load(DESIGN_JOB)
    raw["privacy"]["secure_aggregation"] = SECURE
    raw["strategy"]["weighting"] = "uniform"
    for path, value in changed.items():
        *parents, last = path.split("__")
        block = raw
        for key in parents:
            block = block.setdefault(key, {})
        block[last] = value
    return yaml.safe_dump(raw)


def test_a_secure_job_is_read_and_says_what_its_enclave_lets_out():
    shares = {"privacy__robustness__max_share_per_host_app": 0.2, "budget__enclave_mb_per_s": 3}
    job = parse_job(secure(**shares))
    policy = job.release_policy()
    assert (policy.mode, policy.release_threshold) == ("enclave", 20)
    assert policy.max_share_per_host_app == 0.2
    assert job.budget.enclave_mb_per_s == 3
    assert Job.model_validate_json(job.to_json()) == job


MASKED = {
    "privacy__secure_aggregation": SECURE | {"mode": "masked"},
    "privacy__robustness": {},
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"privacy__secure_aggregation": {"mode": "enclave"}}, "release_threshold"),
        (
            {"privacy__secure_aggregation": SECURE | {"allowed_measurements": ["abc"]}},
            "allowed_measurements",
        ),
        (
            {"privacy__secure_aggregation": SECURE | {"allowed_measurements": []}},
            "allowed_measurements",
        ),
        ({"privacy__secure_aggregation": SECURE | {"release_threshold": 1}}, "release_threshold"),
        ({"strategy__buffer_size": 10}, "raise strategy.buffer_size"),
        (
            {"privacy__secure_aggregation": SECURE | {"max_share_per_device": 0.01}},
            "max_share_per_device",
        ),
        (MASKED | {"privacy__robustness": {"max_update_norm": 1.0}}, "max_update_norm"),
        (
            MASKED | {"privacy__robustness": {"max_share_per_host_app": 0.5}},
            "max_share_per_host_app",
        ),
        (MASKED | {"client__compression": {"name": "int8"}}, "client.compression"),
        (MASKED | {"strategy__weighting": "examples"}, "weighting"),
    ],
)
def test_a_secure_job_that_cannot_work_is_refused_with_the_mend(changed, said):
    assert said in str(refusal(secure(**changed)))


def test_in_masked_mode_the_reason_is_that_nobody_sees_an_update():
    changed = MASKED | {"privacy__robustness": {"max_update_norm": 1.0}}
    assert "nobody sees an update" in str(refusal(secure(**changed)))
    assert parse_job(secure(**MASKED)).release_policy().mode == "masked"


@pytest.mark.parametrize(
    "path", ["privacy.robustness.max_share_per_host_app", "budget.enclave_mb_per_s"]
)
def test_what_only_an_enclave_keeps_to_needs_one(path):
    assert "privacy.secure_aggregation" in str(refusal(with_value(path, 0.5)))
