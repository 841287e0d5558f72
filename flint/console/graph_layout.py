"""Where the boxes of a lineage stand: layers from left to right, few crossings, no overlaps.

Sugiyama's method (Sugiyama, Tagawa and Toda, 1981) in small: the longest path gives the layer,
edges that skip layers get a place in each, and the order within one follows the neighbours' mean.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

BOX_WIDTH, BOX_HEIGHT = 196.0, 44.0
LAYER_GAP, BOX_GAP = 46.0, 12.0
_PASS_HEIGHT = 8.0
_SWEEPS = 6

Edge = tuple[str, str]
_Item = tuple[str, str, int]
"""A box ``(key, "", -1)``, or where an edge passes a layer ``(made, source, layer)``."""


@dataclass(frozen=True)
class Layout:
    """A drawn lineage, in pixels.

    Attributes:
        boxes: Left upper corner of each node's box.
        edges: Corners that each edge goes through, from the made thing's box to the source's.
    """

    width: float
    height: float
    boxes: Mapping[str, tuple[float, float]]
    edges: Mapping[Edge, tuple[tuple[float, float], ...]]


def lay_out(keys: Sequence[str], edges: Collection[Edge]) -> Layout:
    """Place nodes so that each stands to the left of all that it was made from.

    Args:
        keys: Nodes.
        edges: ``(made, source)``, both among the nodes; an edge that closes a circle is left out.
    """
    layer = _layers(keys, edges)
    kept = [edge for edge in dict.fromkeys(edges) if layer[edge[0]] < layer[edge[1]]]
    rows, chains = _rows(keys, kept, layer)
    centre = _centres(rows, _neighbours(chains))
    top = min((y - _height(item) / 2 for item, y in centre.items()), default=0.0)
    bottom = max((y + _height(item) / 2 for item, y in centre.items()), default=0.0)

    def left(depth: int) -> float:
        return depth * (BOX_WIDTH + LAYER_GAP)

    def corner(item: _Item, side: float) -> tuple[float, float]:
        depth = layer[item[0]] if item[2] < 0 else item[2]
        return left(depth) + side, centre[item] - top

    boxes = {key: (left(layer[key]), centre[_box(key)] - top - BOX_HEIGHT / 2) for key in keys}
    through = {}
    for edge, chain in chains.items():
        corners = [corner(chain[0], BOX_WIDTH)]
        for item in chain[1:-1]:
            corners += [corner(item, 0.0), corner(item, BOX_WIDTH)]
        through[edge] = (*corners, corner(chain[-1], 0.0))
    width = left(len(rows) - 1) + BOX_WIDTH if rows else 0.0
    return Layout(width, bottom - top, boxes, through)


def _layers(keys: Sequence[str], edges: Collection[Edge]) -> dict[str, int]:
    """Longest path to each node; nodes of a circle stay where the rest of the graph puts them."""
    sources, waits = defaultdict(list), dict.fromkeys(keys, 0)
    for made, source in dict.fromkeys(edges):
        sources[made].append(source)
        waits[source] += 1
    layer = dict.fromkeys(keys, 0)
    ready = [key for key in keys if waits[key] == 0]
    while ready:
        made = ready.pop()
        for source in sources[made]:
            layer[source] = max(layer[source], layer[made] + 1)
            waits[source] -= 1
            if waits[source] == 0:
                ready.append(source)
    return layer


def _rows(
    keys: Sequence[str], edges: Sequence[Edge], layer: Mapping[str, int]
) -> tuple[list[list[_Item]], dict[Edge, list[_Item]]]:
    """Items of each layer, and the items that each edge goes through."""
    rows: list[list[_Item]] = [[] for _ in range(1 + max(layer.values(), default=-1))]
    for key in keys:
        rows[layer[key]].append(_box(key))
    chains = {}
    for made, source in edges:
        between = [(made, source, depth) for depth in range(layer[made] + 1, layer[source])]
        for item in between:
            rows[item[2]].append(item)
        chains[made, source] = [_box(made), *between, _box(source)]
    return rows, chains


def _neighbours(chains: Mapping[Edge, Sequence[_Item]]) -> Mapping[_Item, list[_Item]]:
    found: dict[_Item, list[_Item]] = defaultdict(list)
    for chain in chains.values():
        for one, other in pairwise(chain):
            found[one].append(other)
            found[other].append(one)
    return found


def _centres(
    rows: Sequence[list[_Item]], neighbours: Mapping[_Item, list[_Item]]
) -> dict[_Item, float]:
    """Height of every item's middle: near the mean of its neighbours', in order, apart."""
    centre: dict[_Item, float] = {}
    for row in rows:
        _stack(row, centre, dict.fromkeys(row, 0.0))
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            wish = {}
            for item in row:
                near = neighbours.get(item)
                wish[item] = sum(centre[n] for n in near) / len(near) if near else centre[item]
            row.sort(key=lambda item: wish[item])
            _stack(row, centre, wish)
    return centre


def _stack(row: Sequence[_Item], centre: dict[_Item, float], wish: Mapping[_Item, float]) -> None:
    """Put a layer's items one below the other, each as near as can be to where it wishes to be."""
    bottom = float("-inf")
    shift = 0.0
    for item in row:
        half = _height(item) / 2
        centre[item] = max(wish[item], bottom + half)
        shift += centre[item] - wish[item]
        bottom = centre[item] + half + BOX_GAP
    # Pushed down only: half of it back, so that a layer stays around its neighbours' middle.
    if row:
        for item in row:
            centre[item] -= shift / len(row)


def _box(key: str) -> _Item:
    return (key, "", -1)


def _height(item: _Item) -> float:
    return BOX_HEIGHT if item[2] < 0 else _PASS_HEIGHT
