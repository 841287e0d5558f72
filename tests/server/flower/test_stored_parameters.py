import numpy as np
import pytest

from device_runtime.update_codec import encode_parameters
from feature_catalog.blobs import BlobStore, MissingBlob
from modeling.zoo import get_model
from server.flower.stored_parameters import StoredParameters

MODEL = get_model("tiny_mlp")


class CountingStore(BlobStore):
    reads = 0

    def get(self, digest: bytes) -> bytes:
        self.reads += 1
        return super().get(digest)


def test_a_version_is_read_once_and_only_when_somebody_is_sent_it(tmp_path):
    store = CountingStore(str(tmp_path))
    arrays = MODEL.initial_parameters(seed=1)
    digest = store.put(encode_parameters(MODEL.parameters, arrays))
    parameters = StoredParameters(store, digest, MODEL)
    assert list(parameters) == [p.name for p in MODEL.parameters]
    assert len(parameters) == len(arrays)
    assert "hidden/kernel" in parameters
    assert "other" not in parameters
    assert store.reads == 0
    for (name, array), expected in zip(parameters.items(), arrays, strict=True):
        np.testing.assert_array_equal(array, expected, err_msg=name)
    assert store.reads == 1
    with pytest.raises(KeyError):
        parameters["other"]


def test_a_version_that_is_gone_is_said_to_be(tmp_path):
    parameters = StoredParameters(BlobStore(str(tmp_path)), b"d" * 32, MODEL)
    with pytest.raises(MissingBlob):
        parameters["hidden/kernel"]
