"""What a dry-run reads of a data set, once it is known to be made for the model."""

from pathlib import Path

from feature_catalog.opened_dataset import Dataset, check_dataset
from modeling.spec import ModelSpec
from simulation.executors.records import ClientRecords


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
