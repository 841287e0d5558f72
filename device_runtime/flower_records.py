"""Names of the records and keys in which a task travels to a stock SuperNode and back.

Light on purpose: the server's adapter and `device_runtime.client_app` both import it, and only the
latter runs on a node.

Train message: ``arrays`` (ArrayRecord: base parameters by name, in wire order) and ``config``
(ConfigRecord: the keys of `TaskKey`). Reply: ``arrays`` (ArrayRecord: local parameters, same names
and order), ``metrics`` (MetricRecord: the keys of `MetricKey`) and ``echo`` (ConfigRecord: the keys
of `EchoKey`). What cannot be done comes back as an error message, whose reason starts with the
short code that a device would report, e.g. ``"no_examples: ..."``; ``"invalid_task: ..."`` says
that the message was not as written here. A secure job's are sealed by `device_runtime.sealing_mod`.
"""

from enum import StrEnum

ARRAYS = "arrays"
CONFIG = "config"
METRICS = "metrics"
ECHO = "echo"

SECURE = "secure"
"""ConfigRecord of a secure job's messages and replies: the keys of `SecureKey`."""

EXAMPLES_NODE_CONFIG = "examples"
"""Key of a SuperNode's ``--node-config``: path of its `SqliteExampleStore`."""

CACHE_NODE_CONFIG = "cache"
"""Optional key of ``--node-config``: folder of artefacts; else ``cache`` beside the store."""


TRUST_NODE_CONFIG = "attestation_trust"
"""Optional key of ``--node-config``: file of what the node pins to verify enclaves by."""

APP_NODE_CONFIG = "app_id"
"""Optional key of ``--node-config``: what the node is to enclaves as a host app."""


class SecureKey(StrEnum):
    """Keys of ``secure``: first a nonce is asked for, then the task brings evidence for it."""

    JOB_ID = "job_id"  # str, in the task
    DEMANDS = "demands"  # bytes, in the task: serialised SecureAggregation
    EVIDENCE = "evidence"  # bytes, in the task: serialised Evidence
    SEALED_FOR = "sealed_for"  # bytes, in the task: serialised SealedFor
    NONCE = "nonce"  # bytes, in the first reply
    PAYLOAD = "payload"  # bytes, in the reply: serialised SealedUpdate
    TRAIN_S = "train_s"  # float, in the reply


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
