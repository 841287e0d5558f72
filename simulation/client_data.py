"""What a dry-run reads of a data set, once it is known to be made for the model."""

from pathlib import Path

from device_runtime.errors import FlintError
from feature_catalog.opened_dataset import Dataset
from modeling.spec import ModelSpec
from simulation.executors.records import ClientRecords


class ForeignDataset(FlintError):
    """A data set without the model's columns."""

    code = "FLN-1720"


def training_records(dataset: Dataset, model: ModelSpec) -> ClientRecords:
    """Records of the training clients, in the order of ``Dataset.clients()``; nothing is copied.

    Raises:
        ForeignDataset: If the data set was made for another model.
    """
    check_dataset(dataset, model)
    source = dataset.source.records
    return ClientRecords(
        *dataset.train(),
        dataset.train_first_rows,
        dataset.train_record_counts,
        source if isinstance(source, Path) else None,
    )


def check_dataset(dataset: Dataset, model: ModelSpec) -> None:
    """Refuse a data set whose records are not what a model takes.

    Raises:
        ForeignDataset: Naming both.
    """
    row = dataset.row
    x, y = dataset.train()
    found = (row.model, str(x.dtype), x.shape[1:], y.shape[1:])
    wanted = (model.name, model.input.dtype, model.input.shape, model.label_shape)
    if found != wanted:
        raise ForeignDataset(
            f"data set {row.name}@{row.version} does not have the columns of {model.name}: it "
            f"holds {_form(*found)}, the model takes {_form(*wanted)}; add its file for this "
            f"model: flint dataset add FILE --model {model.name}"
        )


def _form(model: str, dtype: str, width: tuple[int, ...], label: tuple[int, ...]) -> str:
    columns = " x ".join(map(str, width))
    return f"{columns} {dtype} columns and {label[0]} label made for {model}"
