"""Tables come back from Parquet as they were."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simulation.table_bytes import parquet_bytes

TABLE = pa.table(
    {
        "task": np.arange(5_000),
        "started_s": np.random.default_rng(3).random(5_000),
        "outcome": pa.array(["succeeded", "dropped_out"]).take(pa.array(np.arange(5_000) % 2)),
        "version": pa.array([None, 7] * 2_500, pa.int64()),
    }
)


def test_a_table_comes_back_to_the_bit():
    assert pq.read_table(io.BytesIO(parquet_bytes(TABLE))).equals(TABLE)


def test_seconds_that_do_not_repeat_get_no_dictionary():
    group = pq.ParquetFile(io.BytesIO(parquet_bytes(TABLE))).metadata.row_group(0)
    has_dictionary = [
        group.column(at).path_in_schema
        for at in range(group.num_columns)
        if group.column(at).has_dictionary_page
    ]
    assert has_dictionary == ["outcome", "version"]
