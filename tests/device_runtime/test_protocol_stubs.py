import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.integration
def test_the_stubs_in_the_tree_are_what_the_proto_files_generate(tmp_path):
    generated = tmp_path / "out"
    generated.mkdir()
    subprocess.run(
        ["sh", "tools/generate_protocols.sh", str(generated)],
        cwd=ROOT,
        check=True,
        env=os.environ,
    )
    made = {p.relative_to(generated): p.read_text() for p in generated.rglob("*.py*")}
    assert Path("device_runtime/protocol/device_pb2.py") in made
    kept = {path: (ROOT / path).read_text() for path in made}
    assert kept == made


def test_field_numbers_of_version_one_are_never_changed():
    from device_runtime.protocol import device_pb2 as pb

    numbers = {
        (message.name, field.name): field.number
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    }
    spot_checks = {
        ("DeviceProof", "signature"): 3,
        ("CheckInRequest", "satisfied_policy_sha256"): 3,
        ("Task", "contract_sha256"): 8,
        ("TrainingPlan", "shuffle_seed"): 6,
        ("UploadRequest", "payload"): 5,
        ("Update", "num_examples"): 2,
        ("Tensor", "data"): 4,
    }
    assert {name: numbers[name] for name in spot_checks} == spot_checks
