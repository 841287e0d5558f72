"""Which metrics of which replies can be averaged: what one node sends must not stop the run."""

import math
from collections import Counter
from collections.abc import Sequence

from flwr.app import Message, RecordDict

_LARGEST = 1e300


def averageable(
    contents: Sequence[RecordDict], weighted_by_key: str, max_weight: float
) -> list[RecordDict]:
    """Those that Flower's own `aggregate_metricrecords` can take together.

    It raises for the whole round when one reply has other keys than the rest. Here those are taken
    that look like most: one MetricRecord of the same name with the same keys and lengths of lists,
    finite values, and a positive weight.

    Args:
        contents: Of replies to one question.
        weighted_by_key: Metric that holds the weight.
        max_weight: Larger claims are left out.
    """
    shapes = [_shape(content, weighted_by_key, max_weight) for content in contents]
    counts = Counter(shape for shape in shapes if shape is not None)
    if not counts:
        return []
    ((most, _),) = counts.most_common(1)
    return [content for content, shape in zip(contents, shapes, strict=True) if shape == most]


def without_bad_replies(
    replies: Sequence[Message], weighted_by_key: str, max_weight: float
) -> list[Message]:
    """Replies with an error, and of the others those that are `averageable`."""
    contents = [reply.content for reply in replies if reply.has_content()]
    taken = {id(content) for content in averageable(contents, weighted_by_key, max_weight)}
    return [reply for reply in replies if reply.has_error() or id(reply.content) in taken]


def _shape(
    content: RecordDict, weighted_by_key: str, max_weight: float
) -> tuple[tuple[str, int], ...] | None:
    """Names and lengths, the record's own name first; None for what cannot be averaged."""
    if len(content.metric_records) != 1:
        return None
    ((name, record),) = content.metric_records.items()
    weight = record.get(weighted_by_key)
    if isinstance(weight, list) or weight is None or not 0 < weight <= max_weight:
        return None
    lengths = []
    for key, value in sorted(record.items()):
        values = value if isinstance(value, list) else [value]
        if not all(_is_finite(each) for each in values):
            return None
        lengths.append((key, len(values) if isinstance(value, list) else -1))
    return ((name, 0), *lengths)


def _is_finite(value: float) -> bool:
    return not (isinstance(value, float) and math.isnan(value)) and abs(value) < _LARGEST
