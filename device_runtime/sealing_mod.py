"""A Flower client mod that seals what a SuperNode learns, for jobs with secure aggregation.

The server asks for a nonce first; its task then brings evidence made for that nonce. The mod
verifies it before anything is trained, and what the ClientApp answers leaves the node sealed. Tasks
of other jobs pass through as they are.

    flower-supernode --node-config 'examples="/data/examples.sqlite" attestation_trust="trust.json"'
"""

import secrets
import time
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from google.protobuf.message import DecodeError

from device_runtime import flower_records as names
from device_runtime.attestation import NONCE_BYTES, AttestationTrust
from device_runtime.errors import FlintError
from device_runtime.flower_records import EchoKey, MetricKey, SecureKey
from device_runtime.protocol import device_pb2 as pb
from device_runtime.secure_updates import VerifiedEnclave, seal_update, verify_given
from device_runtime.task_fault import TaskFault

_CLIENT_APP_RAISED_EXCEPTION = 2  # flwr.common.constant.ErrorCode is not public
_NONCE_STATE = "flint_attestation_nonce"


def sealing_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Answer with a nonce, or verify, train and seal; pass on what is of no secure job."""
    secure = message.content.config_records.get(names.SECURE)
    if secure is None:
        return call_next(message, context)
    if SecureKey.EVIDENCE not in secure:
        return Message(_challenge(context), reply_to=message)
    try:
        sealed_for = _sealed_for(secure, context)
        enclave = _verified(secure, context)
        trained = call_next(message, context)
        if trained.has_error():
            return trained
        content = _sealed(message.content, trained.content, sealed_for, enclave, context)
    except TaskFault as fault:
        reason = str(fault)
    except (FlintError, KeyError, TypeError, DecodeError) as error:
        reason = f"invalid_task: {error}"
    else:
        return Message(content, reply_to=message)
    return Message(Error(_CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def _challenge(context: Context) -> RecordDict:
    nonce = secrets.token_bytes(NONCE_BYTES)
    context.state.config_records[_NONCE_STATE] = ConfigRecord({"nonce": nonce})
    return RecordDict({names.SECURE: ConfigRecord({str(SecureKey.NONCE): nonce})})


def _sealed_for(secure: ConfigRecord, context: Context) -> pb.SealedFor:
    """What the update is to be bound to, if that is this node and this job."""
    sealed_for = pb.SealedFor.FromString(_bytes(secure, SecureKey.SEALED_FOR))
    # Enclaves count names: whoever could name this node at will could be all of them.
    if sealed_for.device_id != f"node-{context.node_id}":
        raise TaskFault("attestation_other_node", "the task is to be sealed in another node's name")
    if sealed_for.job_id != secure[SecureKey.JOB_ID]:
        raise TaskFault("attestation_wrong_job", "the task is to be sealed for another job")
    return sealed_for


def _verified(secure: ConfigRecord, context: Context) -> VerifiedEnclave:
    kept = context.state.config_records.pop(_NONCE_STATE, None)
    nonce = None if kept is None else kept["nonce"]
    if not isinstance(nonce, bytes):
        raise TaskFault("attestation_wrong_nonce", "this node was not asked for a nonce before")
    path = context.node_config.get(names.TRUST_NODE_CONFIG)
    trust = None if path is None else AttestationTrust.read(Path(str(path)))
    return verify_given(
        pb.Evidence.FromString(_bytes(secure, SecureKey.EVIDENCE)),
        nonce,
        str(secure[SecureKey.JOB_ID]),
        pb.SecureAggregation.FromString(_bytes(secure, SecureKey.DEMANDS)),
        trust,
        time.time(),
    )


def _sealed(
    task: RecordDict,
    trained: RecordDict,
    sealed_for: pb.SealedFor,
    enclave: VerifiedEnclave,
    context: Context,
) -> RecordDict:
    base, local = task.array_records[names.ARRAYS], trained.array_records[names.ARRAYS]
    metrics = trained.metric_records[names.METRICS]
    update = pb.Update(
        num_examples=int(_number(metrics[MetricKey.NUM_EXAMPLES])),
        loss_before=_number(metrics[MetricKey.LOSS_BEFORE]),
        loss_after=_number(metrics[MetricKey.LOSS_AFTER]),
    )
    for name, array in base.items():
        delta = local[name].numpy() - array.numpy()
        update.delta.tensors.add(
            name=name,
            dtype="float32",
            shape=delta.shape,
            data=np.ascontiguousarray(delta, "<f4").tobytes(),
        )
    app_id = str(context.node_config.get(names.APP_NODE_CONFIG, "flower-supernode"))
    payload = seal_update(enclave, sealed_for, app_id, update.SerializeToString(), never_sent=True)
    echo = trained.config_records[names.ECHO]
    return RecordDict(
        {
            names.SECURE: ConfigRecord(
                {
                    str(SecureKey.PAYLOAD): payload,
                    str(SecureKey.TRAIN_S): _number(metrics[MetricKey.TRAIN_S]),
                }
            ),
            names.ECHO: ConfigRecord({str(key): echo[key] for key in EchoKey}),
        }
    )


def _bytes(record: ConfigRecord, key: SecureKey) -> bytes:
    value = record[key]
    if not isinstance(value, bytes):
        raise TypeError(f"{key} is of type {type(value).__name__}, not bytes")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"a metric is of type {type(value).__name__}, not a number")
    return float(value)
