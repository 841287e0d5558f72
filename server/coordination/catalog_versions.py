"""A job's versions in the catalog's model store: blob first, then one transaction."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

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
from feature_catalog.blobs import BlobStoreUnreachable
from feature_catalog.failpoints import failpoint
from feature_catalog.model_store import ModelStore, ModelVersion, NewVersion
from feature_catalog.task_outcomes import TaskOutcomeRow
from modeling.spec import ModelSpec
from server.coordination.tasks import Outcome, TaskResult
from server.coordination.versions import JobTotals, StoredVersion
from server.operations.memory import MemoryReturn, give_back_memory

log = logging.getLogger(__name__)

_REMEMBERED_ENDS = 100_000
_LARGE_PARAMETERS = 1_000_000
_GIVE_BACK_EVERY_S = 60.0


class CatalogVersions:
    """A `VersionStore` on Postgres and the blob store.

    Every write is refused with `JobTakenOver` once a later coordinator has claimed the job.

    Args:
        epoch: Incarnation of the coordinator that writes.
        line: Name under which the versions are kept, the job's name.
        contract_sha256: What the versions were trained under; stored with each.
        feature_contract_sha256: The part of it that is the feature service's, if the job names one.
        on_stored: Called when all that was decided so far is stored.
        try_again: Called when the blob store cannot be written, full for example: waits a while and
            says whether to try again. `BlobStoreUnreachable` is raised when not.
    """

    def __init__(
        self,
        models: ModelStore,
        job_id: str,
        epoch: int,
        line: str,
        model: ModelSpec,
        contract_sha256: bytes,
        *,
        feature_contract_sha256: bytes | None = None,
        on_stored: Callable[[], None] = lambda: None,
        try_again: Callable[[], bool] = lambda: False,
    ) -> None:
        self._models = models
        self._job_id = job_id
        self._epoch = epoch
        self._on_stored = on_stored
        self._try_again = try_again
        self._line = line
        self._model = model
        self._contract_sha256 = contract_sha256
        self._feature_contract_sha256 = feature_contract_sha256
        self._rows: dict[int, ModelVersion] = {}
        self._memory_return = MemoryReturn(_GIVE_BACK_EVERY_S)

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
        return StoredVersion(
            row.job_version,
            flatten(parameters),
            slots,
            row.parameters_sha256,
            tuple(row.release_ids),
            self._totals(JobTotals(**row.strategy_state.get("totals", {}))),
            row.metrics,
        )

    def ended_tasks(self) -> tuple[str, ...]:
        """See `VersionStore.ended_tasks`."""
        return self._models.ended_tasks(self._job_id, _REMEMBERED_ENDS)

    def releases_after(self, number: int) -> tuple[str, ...]:
        """See `VersionStore.releases_after`."""
        return self._models.releases_of_job(self._job_id, number)

    def store(self, version: StoredVersion, results: Sequence[TaskResult]) -> bytes:
        """See `VersionStore.store`."""
        parent = self._rows.get(version.number - 1)
        failpoint("version_to_be_stored")
        row = self._add_when_there_is_space(version, results, parent.id if parent else None)
        self._on_stored()
        if version.weights.size >= _LARGE_PARAMETERS:
            give_back_memory()
        else:
            self._memory_return.due()
        return row.parameters_sha256

    def record_metrics(self, number: int, metrics: Mapping[str, float]) -> None:
        """See `VersionStore.record_metrics`."""
        self._models.record_metrics(self._rows[number].id, metrics)

    def store_results(self, results: Sequence[TaskResult]) -> None:
        """See `VersionStore.store_results`."""
        if results:
            rows = [self._outcome_row(result) for result in results]
            self._models.record_outcomes(rows, self._job_id, self._epoch)
        self._on_stored()

    def _totals(self, of_version: JobTotals) -> JobTotals:
        """With the tasks that ended after the version; their outcomes are stored all the while.

        Uploads that belong to no task have no outcome stored; they are the version's.
        """
        outcomes: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for (outcome, reason), count in self._models.count_outcomes(self._job_id).items():
            outcomes[outcome] += count
            if outcome != Outcome.SUCCEEDED:
                reasons[reason] += count
        return replace(
            of_version,
            outcomes=outcomes | Counter(of_version.outcomes),  # the greater of each
            reasons=reasons | Counter(of_version.reasons),
        )

    def _add_when_there_is_space(
        self, version: StoredVersion, results: Sequence[TaskResult], parent_id: int | None
    ) -> ModelVersion:
        while True:
            try:
                return self._add(version, results, parent_id)
            except BlobStoreUnreachable as error:
                # All of it is here: what is summed up is neither asked for nor trained again.
                log.error("version %d of job %s waits: %s", version.number, self._job_id, error)
                if not self._try_again():
                    raise

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
                job_epoch=self._epoch,
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
                feature_contract_sha256=self._feature_contract_sha256,
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
