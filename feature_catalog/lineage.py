"""Lineage as a graph: what a thing was made from, as far as the catalog knows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LineageNode:
    """One thing of a lineage.

    Attributes:
        key: Identifies it in the graph, e.g. ``job:j-3f2a91bc04de``.
        kind: What it is, e.g. ``job`` or ``feature_view``.
        title: What people call it.
        facts: What is known of it, in the order in which it is shown.
        missing: What the catalog does not know of it, and why, in a sentence; None: nothing.
    """

    key: str
    kind: str
    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class LineageEdge:
    """A thing, and one that it was made from.

    Attributes:
        relation: Reads ``made relation source``, e.g. ``trained by``.
    """

    made: str
    source: str
    relation: str


@dataclass(frozen=True)
class LineageGraph:
    """Everything a thing was made from; edges lead away from it and never in circles.

    Attributes:
        root: Key of the thing.
        nodes: By key, in the order in which they were found.
    """

    root: str
    nodes: Mapping[str, LineageNode]
    edges: tuple[LineageEdge, ...]

    @property
    def missing(self) -> tuple[LineageNode, ...]:
        """Nodes of which something is not known."""
        return tuple(node for node in self.nodes.values() if node.missing is not None)

    def sources(self, key: str) -> tuple[LineageEdge, ...]:
        """What a thing was made from directly."""
        return tuple(edge for edge in self.edges if edge.made == key)


class LineageDraft:
    """A graph that is being put together."""

    def __init__(self, root: LineageNode) -> None:
        self._root = root.key
        self._nodes = {root.key: root}
        self._edges: dict[LineageEdge, None] = {}

    def add(self, made: str, relation: str, source: LineageNode) -> bool:
        """Say what something was made from.

        Returns:
            Whether the source is new in the graph; if not, what is known of it stays.
        """
        self._edges[LineageEdge(made, source.key, relation)] = None
        is_new = source.key not in self._nodes
        if is_new:
            self._nodes[source.key] = source
        return is_new

    def finish(self) -> LineageGraph:
        """The graph."""
        return LineageGraph(self._root, self._nodes, tuple(self._edges))
