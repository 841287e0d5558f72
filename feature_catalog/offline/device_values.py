"""Values of device views: events never reach the cloud, so the entity rows bring them along."""

from collections.abc import Sequence

import pyarrow as pa

from feature_catalog.definitions.served import ServedFeature
from feature_catalog.offline.entity_rows import entity_column
from feature_catalog.offline.errors import AmbiguousColumns


def device_column(table: pa.Table, feature: ServedFeature, served: Sequence[ServedFeature]) -> str:
    """Which column of the entity rows holds a device view's field.

    It is ``view__field``, or ``field`` where no other device view of the service has one of that
    name.

    Raises:
        MissingEntityColumn: If there is neither.
        AmbiguousColumns: If ``field`` could be that of several views.
    """
    view, field = feature.view.name, feature.feature.field
    qualified = f"{view}__{field}"
    if qualified in table.column_names:
        return qualified
    others = sorted(
        {
            other.view.name
            for other in served
            if other.view.is_on_device and other.feature.field == field and other.view.name != view
        }
    )
    if others and field in table.column_names:
        raise AmbiguousColumns(
            f"the entity rows' column {field} could be of {' or '.join([view, *others])}, which "
            f"are both views of the device; name it {qualified}, and the other likewise"
        )
    entity_column(
        table,
        qualified if others else field,
        f"what the device recorded for {feature.feature.ref}: events never leave devices, so "
        f"entity rows bring them (as {field} or {qualified})",
    )
    return field
