"""What a secure job demands to be proven, as devices and nodes are told."""

from device_runtime.protocol import device_pb2 as pb
from server.job import Job


def secure_aggregation_message(job: Job) -> pb.SecureAggregation | None:
    """The demands of a job's ``privacy.secure_aggregation``; None for a job without."""
    secure, policy = job.privacy.secure_aggregation, job.release_policy()
    if secure is None or policy is None:
        return None
    return pb.SecureAggregation(
        release_policy_json=policy.to_json(),
        allowed_measurements=[bytes.fromhex(m) for m in secure.allowed_measurements],
    )
