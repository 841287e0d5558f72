import numpy as np
import pytest
import torch

from modeling.torch_models import (
    ForeignParameters,
    build_torch,
    dump_parameters,
    load_parameters,
    load_state_dict,
    save_state_dict,
    weighted_loss,
)
from modeling.zoo import SPARSE_MLP, TINY_MLP


def test_parameters_are_in_wire_order_with_wire_names(spec):
    named = list(build_torch(spec).named_parameters())
    assert [name.replace(".", "/") for name, _ in named] == [p.name for p in spec.parameters]
    assert [tuple(tensor.shape) for _, tensor in named] == [p.shape for p in spec.parameters]


def test_loaded_parameters_are_dumped_bit_for_bit(spec):
    model, arrays = build_torch(spec), spec.initial_parameters(1)
    load_parameters(model, arrays)
    for dumped, array in zip(dump_parameters(model), arrays, strict=True):
        np.testing.assert_array_equal(dumped, array)


def test_a_bag_sums_its_rows_over_the_root_of_their_count_and_skips_padding():
    arrays = SPARSE_MLP.initial_parameters(2)
    model = build_torch(SPARSE_MLP)
    load_parameters(model, arrays)
    table, bias = arrays[0].astype(np.float64), arrays[1].astype(np.float64)
    record = np.full((1, 64), -1, np.int32)
    record[0, [0, 3, 63]] = [5, 1023, 5]
    expected = np.maximum((2 * table[5] + table[1023]) / np.sqrt(3) + bias, 0)
    with torch.no_grad():
        outputs = model.get_submodule("bag")(torch.from_numpy(record)).numpy()[0]
    np.testing.assert_allclose(outputs, expected, atol=1e-6)


def test_a_record_without_ids_gives_the_bias():
    arrays = SPARSE_MLP.initial_parameters(2)
    arrays[1] += 0.25
    model = build_torch(SPARSE_MLP)
    load_parameters(model, arrays)
    empty = torch.full((1, 64), -1, dtype=torch.int32)
    torch.testing.assert_close(model.get_submodule("bag")(empty)[0], torch.from_numpy(arrays[1]))


def test_the_loss_is_the_mean_over_weights():
    logits, labels = torch.tensor([[0.3], [-1.0], [2.0]]), torch.tensor([[1.0], [0.0], [0.0]])
    masked = weighted_loss(logits, labels, torch.tensor([1.0, 1.0, 0.0]))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:2], labels[:2])
    torch.testing.assert_close(masked, expected)
    assert weighted_loss(logits, labels, torch.zeros(3)) == 0


def test_a_state_dict_written_is_read_back(spec, tmp_path):
    arrays = spec.initial_parameters(3)
    save_state_dict(spec, arrays, tmp_path / "model.pt")
    for read, array in zip(load_state_dict(spec, tmp_path / "model.pt"), arrays, strict=True):
        np.testing.assert_array_equal(read, array)


class Payload:
    """What a hostile pickle does: runs code when loaded."""

    def __reduce__(self):
        return (print, ("code in the file was run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.nn.Linear(40, 36).state_dict(), r"holds weight \(36, 40\).*tiny_mlp has hidden"),
        ([1, 2], "holds a list, not a state dict"),
        (Payload(), "is not a torch state dict"),
    ],
)
def test_another_models_file_is_refused_with_what_it_holds(content, message, tmp_path, capsys):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ForeignParameters, match=message):
        load_state_dict(TINY_MLP, tmp_path / "other.pt")
    assert capsys.readouterr().out == ""


def test_a_diverged_models_file_is_refused(tmp_path):
    arrays = TINY_MLP.initial_parameters(0)
    arrays[2][0, 0] = np.nan
    save_state_dict(TINY_MLP, arrays, tmp_path / "nan.pt")
    with pytest.raises(ForeignParameters, match=r"NaN or infinite values in logit\.kernel"):
        load_state_dict(TINY_MLP, tmp_path / "nan.pt")


def test_a_file_that_is_not_there_or_not_torchs_is_refused(tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ForeignParameters, match="is not a torch state dict"):
        load_state_dict(TINY_MLP, tmp_path / "text.pt")
    with pytest.raises(ForeignParameters, match="No such file"):
        load_state_dict(TINY_MLP, tmp_path / "absent.pt")
