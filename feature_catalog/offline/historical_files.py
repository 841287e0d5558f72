"""Training data from a file of entity rows to a file, in pieces that fit in memory."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_catalog.offline.errors import UnwritableFeatures
from feature_catalog.offline.historical import FeatureSummary, OfflineFeatures, Progress
from feature_catalog.table_files import TableFile, open_table

ROWS_AT_ONCE = 1_000_000
"""Entity rows in a piece: each reads the sources anew, and is in memory with all its features."""


@dataclass(frozen=True, slots=True)
class WrittenFeatures:
    """What was written.

    Attributes:
        columns: Of the file, in order.
        contract_sha256: Digest of the service's contract, hexadecimal; the file's metadata has it.
    """

    path: Path
    rows: int
    columns: tuple[str, ...]
    features: tuple[FeatureSummary, ...]
    contract_sha256: str


def write_historical_features(
    offline: OfflineFeatures,
    rows: Path,
    output: Path,
    *,
    service: str,
    event_ts: str = "event_ts",
    untransformed: bool = False,
    naive_is_utc: bool = False,
    rows_at_once: int = ROWS_AT_ONCE,
    progress: Progress | None = None,
) -> WrittenFeatures:
    """Join the entity rows of a Parquet or CSV file, and write them with their features.

    The file appears whole or not at all; one that was there is replaced. Each piece sees the
    sources as they are when it is joined.

    Args:
        output: Parquet, with ``flint.feature_service``, ``flint.feature_contract_sha256`` and
            ``flint.transformed`` in its metadata.

    Raises:
        UnwritableFeatures: If the file cannot be written.
        FlintError: If the file of rows cannot be read (`table_files`), and as
            `OfflineFeatures.get_historical_features`.
    """
    if output.absolute() == rows.absolute():
        raise UnwritableFeatures(f"{output} is the file of entity rows; give another name")
    given = open_table(rows)
    pieces = -(-given.num_rows // rows_at_once)
    summaries: tuple[FeatureSummary, ...] = ()
    columns: tuple[str, ...] = ()
    contract_sha256, done = "", 0
    with _whole_file(output) as draft, contextlib.ExitStack() as until_written:
        writer: pq.ParquetWriter | None = None
        for number, piece in enumerate(_pieces(given, rows_at_once)):
            found = offline.get_historical_features(
                entity_rows=piece,
                service=service,
                event_ts=event_ts,
                untransformed=untransformed,
                naive_is_utc=naive_is_utc,
                progress=_of_piece(progress, number, pieces),
            )
            if writer is None:
                metadata = {
                    **(found.table.schema.metadata or {}),
                    "flint.feature_service": service,
                    "flint.feature_contract_sha256": found.contract_sha256,
                    "flint.transformed": str(not untransformed).lower(),
                }
                schema = found.table.schema.with_metadata(metadata)
                writer = until_written.enter_context(pq.ParquetWriter(draft, schema))
            writer.write_table(found.table.replace_schema_metadata(writer.schema.metadata))
            summaries = _added(summaries, found.features)
            columns, contract_sha256 = tuple(found.table.column_names), found.contract_sha256
            done += len(piece)
    return WrittenFeatures(output, done, columns, summaries, contract_sha256)


def _pieces(given: TableFile, rows_at_once: int) -> Iterator[pa.Table]:
    """A file's rows, about ``rows_at_once`` at a time."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in given.batches(given.schema.names):
        held.append(batch)
        count += len(batch)
        if count >= rows_at_once:
            yield pa.Table.from_batches(held)
            held, count = [], 0
    if held:
        yield pa.Table.from_batches(held)


def _of_piece(progress: Progress | None, number: int, pieces: int) -> Progress | None:
    if progress is None:
        return None
    return lambda what, done, total: progress(what, number * total + done, pieces * total)


def _added(
    before: tuple[FeatureSummary, ...], more: tuple[FeatureSummary, ...]
) -> tuple[FeatureSummary, ...]:
    if not before:
        return more
    counts = [each.name for each in fields(FeatureSummary) if each.name not in {"name", "ref"}]
    return tuple(
        FeatureSummary(
            old.name, old.ref, **{name: getattr(old, name) + getattr(new, name) for name in counts}
        )
        for old, new in zip(before, more, strict=True)
    )


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that takes its place when all is written, and is gone otherwise."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    if path.is_dir():
        raise UnwritableFeatures(f"{path} is a folder; give the name of a file, e.g. out.parquet")
    try:
        draft.touch(exist_ok=False)  # before any work is done for it
        yield draft
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.replace(path)
    except OSError as error:
        raise UnwritableFeatures(
            f"{path} cannot be written ({error.strerror}); make its folder, make room, or give "
            "another name"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
