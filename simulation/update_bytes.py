"""What a job's update codec costs a dry-run: bytes of an update, memory of error feedback."""

import numpy as np

from device_runtime.compression import compress
from device_runtime.errors import FlintError
from device_runtime.update_codec import encode_compressed_update, encode_update, unflatten
from modeling.spec import ModelSpec
from server.job import FedAvgSettings, Job
from simulation.enclave_load import sealed_size

MAX_RESIDUAL_BYTES = 4 * 2**30


class ResidualsTooLarge(FlintError):
    """Error feedback of so many clients does not fit in memory."""

    code = "FLN-1722"


def update_bytes(job: Job, model: ModelSpec) -> int:
    """Size of an update as its device sends it, sealed where the job is secure.

    With top_k that depends a little on which values are largest; here they lie anywhere.
    """
    policy = job.release_policy()
    payload = _payload(job, model)
    return len(payload) if policy is None else sealed_size(payload, policy).upload_bytes


def enclave_bytes(job: Job, model: ModelSpec) -> int | None:
    """Bytes of an update that go into the enclave; None where the job has none."""
    policy = job.release_policy()
    return None if policy is None else sealed_size(_payload(job, model), policy).enclave_bytes


def _payload(job: Job, model: ModelSpec) -> bytes:
    values = np.random.Generator(np.random.Philox(0)).standard_normal(
        model.parameter_count, dtype=np.float32
    )
    delta = unflatten(model.parameters, values)
    codec = job.client.compression.codec
    if codec is None:
        payload = encode_update(
            model.parameters,
            delta,
            num_examples=job.client.max_records,
            loss_before=1.0,
            loss_after=1.0,
        )
    else:
        payload = encode_compressed_update(
            model.parameters,
            compress(delta, codec, seed=0),
            num_examples=job.client.max_records,
            loss_before=1.0,
            loss_after=1.0,
        )
    return payload


def require_room_for_residuals(job: Job, model: ModelSpec, clients: int) -> None:
    """Refuse error feedback of more clients than memory can hold.

    Args:
        clients: Of the population.

    Raises:
        ResidualsTooLarge: See there.
    """
    codec = job.client.compression.codec
    if codec is None or not codec.error_feedback:
        return
    taking_part = min(clients, _most_updates(job) or clients)
    needed_bytes = 4 * model.parameter_count * taking_part
    if needed_bytes > MAX_RESIDUAL_BYTES:
        raise ResidualsTooLarge(
            f"client.compression.error_feedback: up to {taking_part} clients would each keep "
            f"{4 * model.parameter_count} bytes that their updates left out, "
            f"{needed_bytes / 2**30:.1f} GiB in all and a dry-run takes at most "
            f"{MAX_RESIDUAL_BYTES / 2**30:.0f}; simulate fewer clients or updates "
            "(population.clients, stop.max_updates), or without error_feedback"
        )


def _most_updates(job: Job) -> int | None:
    """Updates that can count before the job stops; None if its hours alone bound them."""
    strategy, stop = job.strategy, job.stop
    in_one = strategy.cohort_size if isinstance(strategy, FedAvgSettings) else strategy.buffer_size
    limits = []
    if stop.max_updates is not None:
        limits.append(stop.max_updates + in_one)
    if stop.max_aggregations is not None:
        limits.append(stop.max_aggregations * in_one)
    return min(limits, default=None)
