"""The same training as a plain Flower ClientApp, for a stock SuperNode.

Only this file and `device_runtime.sealing_mod` need flwr.

    flower-supernode --node-config 'examples="/data/node-7/examples.sqlite"' ...

Record names and keys are in `device_runtime.flower_records`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from device_runtime import flower_records as names
from device_runtime.blob_cache import BlobCache
from device_runtime.engine import LiteRtEngine
from device_runtime.errors import FlintError
from device_runtime.examples import SqliteExampleStore
from device_runtime.flower_records import EchoKey, MetricKey, TaskKey
from device_runtime.manifest import ArtifactManifest
from device_runtime.sealing_mod import sealing_mod
from device_runtime.task_fault import FAULTS, TaskFault
from device_runtime.training import TrainingResult, train
from device_runtime.training_plan import TrainingPlan
from device_runtime.update_codec import MalformedPayload

_Kind = TypeVar("_Kind", str, bytes, int, float)

_CACHE_BYTES = 256 * 2**20
_CLIENT_APP_RAISED_EXCEPTION = 2  # flwr.common.constant.ErrorCode is not public


class InvalidNodeTask(FlintError):
    """A task a SuperNode cannot read, or a SuperNode that does not say where its records are."""

    code = "FLN-1411"


app = ClientApp(mods=[sealing_mod])


@app.train()
def train_on_node(message: Message, context: Context) -> Message:
    """Train on the node's example store; answers with local parameters, metrics and an echo.

    A task that cannot be done is answered with an error saying why.
    """
    try:
        return Message(_train(message.content, context), reply_to=message)
    except TaskFault as fault:
        reason = str(fault)
    except FAULTS as error:
        reason = str(TaskFault.of(error))
    except InvalidNodeTask as error:
        reason = f"invalid_task: {error}"
    return Message(Error(_CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def _train(content: RecordDict, context: Context) -> RecordDict:
    store_path = _store_path(context)
    try:
        arrays = content.array_records[names.ARRAYS]
        config = content.config_records[names.CONFIG]
        manifest = ArtifactManifest.from_json(_value(config, TaskKey.MANIFEST, str))
        artifact = _value(config, TaskKey.ARTIFACT, bytes)
        plan = _plan(config)
        echo = ConfigRecord({str(key): config[key] for key in EchoKey})
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidNodeTask(
            f"the task's records are not what device_runtime.flower_records names "
            f"({type(error).__name__}: {error}); run server and nodes on one version of FLINT"
        ) from error
    plan.check(manifest)
    base = _base_parameters(arrays, manifest)
    cache_path = context.node_config.get(names.CACHE_NODE_CONFIG, store_path.parent / "cache")
    cache = BlobCache(Path(str(cache_path)), _CACHE_BYTES)
    digest = cache.put(artifact)
    engine = LiteRtEngine(cache.path(digest) or artifact, manifest)
    store = SqliteExampleStore(store_path)
    if store.count() == 0:
        raise TaskFault("no_examples", f"{store_path} holds no records")
    x, y = store.load(plan.max_records)
    result = train(engine, plan, base, x, y)
    if not result.is_finite:
        raise TaskFault("not_finite", "training diverged")
    return RecordDict(
        {
            names.ARRAYS: ArrayRecord(
                {
                    parameter.name: Array(array)
                    for parameter, array in zip(manifest.parameters, result.parameters, strict=True)
                }
            ),
            names.METRICS: _metrics(result),
            names.ECHO: echo,
        }
    )


def _store_path(context: Context) -> Path:
    path = context.node_config.get(names.EXAMPLES_NODE_CONFIG)
    if not isinstance(path, str):
        raise InvalidNodeTask(
            "this SuperNode does not say where its records are; start it with "
            f"--node-config '{names.EXAMPLES_NODE_CONFIG}=\"PATH\"'"
        )
    return Path(path)


def _plan(config: ConfigRecord) -> TrainingPlan:
    return TrainingPlan(
        local_epochs=_value(config, TaskKey.LOCAL_EPOCHS, int),
        batch_size=_value(config, TaskKey.BATCH_SIZE, int),
        max_records=_value(config, TaskKey.MAX_RECORDS, int),
        learning_rate=_value(config, TaskKey.LEARNING_RATE, float),
        proximal_mu=_value(config, TaskKey.PROXIMAL_MU, float),
        shuffle_seed=_value(config, TaskKey.SHUFFLE_SEED, int),
    )


def _value(config: ConfigRecord, key: TaskKey, kind: type[_Kind]) -> _Kind:
    value = config[key]
    if not isinstance(value, kind):
        raise TypeError(f"{key} is of type {type(value).__name__}, not {kind.__name__}")
    return value


def _base_parameters(
    arrays: ArrayRecord, manifest: ArtifactManifest
) -> Sequence[NDArray[np.float32]]:
    base = {name: array.numpy() for name, array in arrays.items()}
    found = {name: (array.shape, str(array.dtype)) for name, array in base.items()}
    wanted = {p.name: (p.shape, "float32") for p in manifest.parameters}
    if found != wanted:
        raise MalformedPayload(f"parameters are {found}, the model has {wanted}")
    return [base[parameter.name] for parameter in manifest.parameters]


def _metrics(result: TrainingResult) -> MetricRecord:
    return MetricRecord(
        {
            str(MetricKey.NUM_EXAMPLES): result.num_examples,
            str(MetricKey.LOSS_BEFORE): result.loss_before,
            str(MetricKey.LOSS_AFTER): result.loss_after,
            str(MetricKey.TRAIN_S): result.train_s,
            str(MetricKey.CPU_S): result.cpu_s,
            str(MetricKey.PEAK_MEMORY_BYTES): result.peak_memory_bytes,
        }
    )
