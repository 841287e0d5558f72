"""Names of the records and keys in which a task travels to a stock SuperNode and back.

Light on purpose: the server's adapter and `device_runtime.client_app` both import it, and only the
latter runs on a node.

Train message: ``arrays`` (ArrayRecord: base parameters by name, in wire order) and ``config``
(ConfigRecord: the keys of `TaskKey`). Reply: ``arrays`` (ArrayRecord: local parameters, same names
and order), ``metrics`` (MetricRecord: the keys of `MetricKey`) and ``echo`` (ConfigRecord: the keys
of `EchoKey`). What cannot be done comes back as an error message, whose reason starts with the
short code that a device would report, e.g. ``"no_examples: ..."``; ``"invalid_task: ..."`` says
that the message was not as written here.
"""

from enum import StrEnum

ARRAYS = "arrays"
CONFIG = "config"
METRICS = "metrics"
ECHO = "echo"

EXAMPLES_NODE_CONFIG = "examples"
"""Key of a SuperNode's ``--node-config``: path of its `SqliteExampleStore`."""

CACHE_NODE_CONFIG = "cache"
"""Optional key of ``--node-config``: folder of artefacts; else ``cache`` beside the store."""


class TaskKey(StrEnum):
    """Keys of ``config``; the plan's are the fields of `TrainingPlan`."""

    MANIFEST = "manifest"  # str: manifest JSON
    ARTIFACT = "artifact"  # bytes: model.tflite; its digest is in the manifest
    BASE_VERSION = "base_version"  # int
    CONTRACT_SHA256 = "contract_sha256"  # bytes
    LOCAL_EPOCHS = "local_epochs"  # int
    BATCH_SIZE = "batch_size"  # int
    MAX_RECORDS = "max_records"  # int
    LEARNING_RATE = "learning_rate"  # float
    PROXIMAL_MU = "proximal_mu"  # float
    SHUFFLE_SEED = "shuffle_seed"  # int, 64 bits, unsigned


class MetricKey(StrEnum):
    """Keys of ``metrics``; the first is spelt as Flower's own strategies expect it."""

    NUM_EXAMPLES = "num-examples"  # int
    LOSS_BEFORE = "loss_before"  # float
    LOSS_AFTER = "loss_after"  # float
    TRAIN_S = "train_s"  # float
    CPU_S = "cpu_s"  # float
    PEAK_MEMORY_BYTES = "peak_memory_bytes"  # int


class EchoKey(StrEnum):
    """Keys of ``echo``: what the task named, for the server to check."""

    BASE_VERSION = "base_version"  # int
    CONTRACT_SHA256 = "contract_sha256"  # bytes
