"""A job's versions in the catalog's model store: blob first, then one transaction."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from device_runtime.manifest import ParameterSpec
from device_runtime.update_codec import (
    decode_parameters,
    encode_parameters,
    flatten,
    parameters_from_blob,
    unflatten,
)
from feature_catalog.model_store import ModelStore, ModelVersion, NewVersion
from feature_catalog.task_outcomes import TaskOutcomeRow
from modeling.spec import ModelSpec
from server.coordination.tasks import TaskResult
from server.coordination.versions import JobTotals, StoredVersion


class CatalogVersions:
    """A `VersionStore` on Postgres and the blob store.

    Args:
        line: Name under which the versions are kept, the job's name.
        contract_sha256: What the versions were trained under; stored with each.
    """

    def __init__(
        self, models: ModelStore, job_id: str, line: str, model: ModelSpec, contract_sha256: bytes
    ) -> None:
        self._models = models
        self._job_id = job_id
        self._line = line
        self._model = model
        self._contract_sha256 = contract_sha256
        self._rows: dict[int, ModelVersion] = {}

    def begin(self, parameters: Sequence[NDArray[np.float32]], parent_id: int | None) -> None:
        """Store version 0, unless the job has versions already."""
        if self._models.newest_of_job(self._job_id) is None:
            self._add(StoredVersion(0, flatten(parameters), {}), (), parent_id)

    def newest(self) -> StoredVersion | None:
        """See `VersionStore.newest`."""
        row = self._models.newest_of_job(self._job_id)
        if row is None or row.job_version is None:
            return None
        self._rows[row.job_version] = row
        parameters = parameters_from_blob(self._model.parameters, self._models.parameters(row))
        state = self._models.optimizer_state(row)
        slots = {t.name: t.array().copy() for t in decode_parameters(state)} if state else {}
        totals = row.strategy_state.get("totals", {})
        return StoredVersion(
            row.job_version,
            flatten(parameters),
            slots,
            row.parameters_sha256,
            tuple(row.release_ids),
            JobTotals(**totals),
            row.metrics,
        )

    def releases_after(self, number: int) -> tuple[str, ...]:
        """See `VersionStore.releases_after`."""
        return self._models.releases_of_job(self._job_id, number)

    def store(self, version: StoredVersion, results: Sequence[TaskResult]) -> bytes:
        """See `VersionStore.store`."""
        parent = self._rows.get(version.number - 1)
        return self._add(version, results, parent.id if parent else None).parameters_sha256

    def record_metrics(self, number: int, metrics: Mapping[str, float]) -> None:
        """See `VersionStore.record_metrics`."""
        self._models.record_metrics(self._rows[number].id, metrics)

    def store_results(self, results: Sequence[TaskResult]) -> None:
        """See `VersionStore.store_results`."""
        self._models.record_outcomes([self._outcome_row(result) for result in results])

    def _add(
        self, version: StoredVersion, results: Sequence[TaskResult], parent_id: int | None
    ) -> ModelVersion:
        slots = version.optimizer_state
        state = encode_parameters(
            [ParameterSpec(name, slot.shape) for name, slot in slots.items()], list(slots.values())
        )
        totals = version.totals
        row = self._models.add_version(
            NewVersion(
                name=self._line,
                model=self._model.name,
                parameters=encode_parameters(
                    self._model.parameters, unflatten(self._model.parameters, version.weights)
                ),
                parent_id=parent_id,
                job_id=self._job_id,
                job_version=version.number,
                metrics=version.metrics,
                strategy_state={
                    "totals": {
                        "elapsed_s": totals.elapsed_s,
                        "updates": totals.updates,
                        "outcomes": dict(totals.outcomes),
                        "reasons": dict(totals.reasons),
                    }
                },
                optimizer_state=state if slots else None,
                release_ids=version.release_ids,
                contract_sha256=self._contract_sha256,
            ),
            [self._outcome_row(result) for result in results],
        )
        # Only the newest is ever a parent or measured; older rows stay in the catalog.
        self._rows = {version.number: row}
        return row

    def _outcome_row(self, result: TaskResult) -> TaskOutcomeRow:
        return TaskOutcomeRow(
            job_id=self._job_id,
            task_id=result.task_id,
            client_id=result.client_id,
            base_version=result.base_version,
            outcome=result.outcome,
            reason=result.reason,
            reason_code=result.reason_code,
            payload_sha256=result.payload_sha256,
            version_number=result.version,
        )
