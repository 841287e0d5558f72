"""A service's features by view, and their transforms by where they run."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from device_runtime.transform_chain import TransformChain
from feature_catalog.definitions.served import ServedFeature
from feature_catalog.definitions.transforms import RunAt


def chain_at(served: ServedFeature, *places: RunAt) -> TransformChain:
    """The transforms of a feature that run at given places, as one chain."""
    steps = served.feature.transforms
    return TransformChain(tuple(step.operation for step in steps if step.run_at in places))


def stored_name(field: str, chain: TransformChain) -> str:
    """What a stored value is called after a chain: 16 digits of a digest longer than its field.

    The digest of the real name is over the assets' digests too; here its length is what counts.
    """
    return f"{field}.{chain.sha256().hex()[:16]}" if chain.steps else field


def by_view(
    served: Sequence[ServedFeature], *, device: bool
) -> Iterator[tuple[str, list[ServedFeature]]]:
    """Features by the view they are of, of device views or of the cloud's, by name."""
    by_view: defaultdict[str, list[ServedFeature]] = defaultdict(list)
    for each in served:
        if each.view.is_on_device is device:
            by_view[each.view.name].append(each)
    yield from sorted(by_view.items())
