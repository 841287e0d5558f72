"""Files an environment names, by name and version: traces, profiles, shares of devices, links.

A file is kept as it is; its reader has checked it before it comes here.
"""

import datetime as dt
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from sqlalchemy import Engine, Select, select, text
from sqlalchemy.orm import Session

from device_runtime.errors import FlintError
from feature_catalog.blobs import BlobStore
from feature_catalog.references import near_matches, split_reference
from feature_catalog.schema import EnvironmentInputRecord

InputKind = Literal["availability", "device_profiles", "device_population", "bandwidth"]
KINDS: tuple[InputKind, ...] = get_args(InputKind)
# An environment tells names from paths, so names are stricter than those of data sets.
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class UnknownEnvironmentInput(FlintError):
    """A reference that names no input of an environment."""

    code = "FLN-1115"


class InvalidEnvironmentInputName(FlintError):
    """A name an input of an environment cannot have."""

    code = "FLN-1116"


class EnvironmentInputKindConflict(FlintError):
    """A name is that of inputs of another kind."""

    code = "FLN-1117"


@dataclass(frozen=True, slots=True)
class EnvironmentInputRow:
    """One version of an input.

    Attributes:
        source: File it was added from.
        sha256: Of the file's bytes.
        suffix: Ending that says the file's format, e.g. ``.parquet``.
        statistics: What its reader found in it.
    """

    name: str
    version: int
    kind: InputKind
    source: str
    sha256: bytes
    suffix: str
    statistics: Mapping[str, Any]
    created_at: dt.datetime

    @property
    def reference(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"


class EnvironmentInputs:
    """Inputs of environments: rows in Postgres, files in the blob store."""

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        self._engine = engine
        self._blobs = blobs
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add(
        self,
        path: Path,
        kind: InputKind,
        name: str | None = None,
        *,
        statistics: Mapping[str, Any],
        source: str | None = None,
    ) -> EnvironmentInputRow:
        """Store a file that its reader has accepted as the next version of a name.

        Adding the bytes of the newest version again returns that version.

        Args:
            name: Defaults to the file's name without its ending.
            statistics: What the reader found; JSON.
            source: What it was made of, where that is not the file itself.

        Raises:
            InvalidEnvironmentInputName: If an environment could not name it so.
            EnvironmentInputKindConflict: If the name is that of inputs of another kind.
            BlobStoreUnreachable: If the file cannot be stored.
        """
        record = EnvironmentInputRecord(
            name=checked_input_name(path, name),
            kind=kind,
            source=str(path) if source is None else source,
            suffix=path.suffix.lower(),
            statistics=dict(statistics),
        )
        with Session(self._engine) as session:
            newest = session.scalars(_newest(record.name)).one_or_none()
            if newest is not None:  # told before much is written
                _check_kind(newest, kind)
        record.sha256 = self._blobs.put_file(path)
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            # One writer of a name at a time, so versions are 1, 2, 3, ...
            lock = text("SELECT pg_advisory_xact_lock(hashtextextended('input ' || :name, 0))")
            session.execute(lock, {"name": record.name})
            newest = session.scalars(_newest(record.name)).one_or_none()
            if newest is not None:
                _check_kind(newest, kind)
                if (newest.sha256, newest.suffix) == (record.sha256, record.suffix):
                    return _row(newest)
            record.version = 1 if newest is None else newest.version + 1
            session.add(record)
            session.flush()
            session.refresh(record)
            return _row(record)

    def get(self, reference: str) -> EnvironmentInputRow:
        """The input of ``name`` or ``name@latest`` (its newest version), or ``name@2``.

        Raises:
            UnknownEnvironmentInput: If there is none; says which there are.
        """
        name, which = split_reference(reference)
        statement = _newest(name)
        if which not in {None, "latest"}:
            number = int(which) if which is not None and which.isdecimal() else 0
            statement = statement.where(EnvironmentInputRecord.version == number)
        with Session(self._engine) as session:
            record = session.scalars(statement).one_or_none()
            if record is not None:
                return _row(record)
            newest = session.scalars(_newest(name)).one_or_none()
            if newest is not None:
                raise UnknownEnvironmentInput(
                    f"there is no trace {reference}; the versions of {name} are 1 to "
                    f"{newest.version}"
                )
            names = session.scalars(
                select(EnvironmentInputRecord.name).distinct().order_by(EnvironmentInputRecord.name)
            ).all()
        first = "add one with `flint trace add FILE`"
        raise UnknownEnvironmentInput(
            f"there is no trace {name!r}{near_matches(name, names, first=first)}"
        )

    def list(self) -> tuple[EnvironmentInputRow, ...]:
        """All versions by name and number."""
        record = EnvironmentInputRecord
        statement = select(record).order_by(record.name, record.version)
        with Session(self._engine) as session:
            return tuple(_row(found) for found in session.scalars(statement))

    def local_file(self, row: EnvironmentInputRow) -> Path:
        """A file with the input's bytes and ending; it lives as long as this object.

        Raises:
            MissingBlob: If its bytes are not in the blob store.
            CorruptBlob: If they are damaged there.
        """
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="flint-inputs-")
        path = Path(self._folder.name) / f"{row.reference}{row.suffix}"
        if path.exists():
            return path
        stored = self._blobs.local_path(row.sha256)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        if stored is not None:
            draft.symlink_to(stored)
        else:
            draft.write_bytes(self._blobs.get(row.sha256))
        return draft.replace(path)


def _newest(name: str) -> Select[EnvironmentInputRecord]:
    return (
        select(EnvironmentInputRecord)
        .where(EnvironmentInputRecord.name == name)
        .order_by(EnvironmentInputRecord.version.desc())
        .limit(1)
    )


def checked_input_name(path: Path, name: str | None) -> str:
    """The name an input gets: the one given, else the file's without its ending.

    Raises:
        InvalidEnvironmentInputName: If an environment could not name it so.
    """
    wanted = path.stem if name is None else name
    if _NAME.fullmatch(wanted) is None:
        raise InvalidEnvironmentInputName(
            f"a trace cannot be called {wanted!r}; give it a name of small letters, digits, '_' "
            "and '-', at most 63, beginning with a letter"
            + (" (--name NAME)" if name is None else "")
        )
    return wanted


def _check_kind(newest: EnvironmentInputRecord, kind: InputKind) -> None:
    if newest.kind != kind:
        raise EnvironmentInputKindConflict(
            f"{newest.name} is the name of {newest.kind}, and this is {kind}; give it another name"
        )


def _row(record: EnvironmentInputRecord) -> EnvironmentInputRow:
    return EnvironmentInputRow(
        name=record.name,
        version=record.version,
        kind=cast(InputKind, record.kind),  # the table's check allows no other
        source=record.source,
        sha256=record.sha256,
        suffix=record.suffix,
        statistics=record.statistics,
        created_at=record.created_at,
    )
