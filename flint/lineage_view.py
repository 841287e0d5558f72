"""A lineage in words and as JSON; the console draws the same graph."""

from collections.abc import Iterator
from typing import Any

from feature_catalog.lineage import LineageEdge, LineageGraph, LineageNode
from flint.catalog_view import Lineage

_MAX_DEPTH = 60


def describe_graph(graph: LineageGraph) -> dict[str, Any]:
    """A lineage as JSON; edges lead from what was made to what it was made from."""
    return {
        "root": graph.root,
        "nodes": [
            {
                "key": node.key,
                "kind": node.kind,
                "title": node.title,
                "facts": dict(node.facts),
                "missing": node.missing,
            }
            for node in graph.nodes.values()
        ],
        "edges": [
            {"made": edge.made, "relation": edge.relation, "source": edge.source}
            for edge in graph.edges
        ],
        "missing": [f"{node.kind} {node.title}: {node.missing}" for node in graph.missing],
    }


def graph_lines(graph: LineageGraph) -> Iterator[str]:
    """A lineage as a tree, then what is not known; what has been shown is not unfolded again."""
    shown: set[str] = set()
    waiting = [(0, "", graph.root)]
    while waiting:
        depth, relation, key = waiting.pop()
        node = graph.nodes[key]
        is_again = key in shown and bool(graph.sources(key))
        yield f"{'  ' * min(depth, _MAX_DEPTH)}{_line(node, relation, is_again=is_again)}"
        if key in shown:
            continue
        shown.add(key)
        waiting += [(depth + 1, e.relation, e.source) for e in reversed(graph.sources(key))]
    if graph.missing:
        yield "not known"
        yield from (f"  {node.kind} {node.title}: {node.missing}" for node in graph.missing)


def definition_graph(lineage: Lineage) -> LineageGraph:
    """The lineage of a definition: what it needs, and above it the models that came of it."""
    nodes: dict[str, LineageNode] = {}
    edges: dict[LineageEdge, None] = {}
    for defined in (*lineage.needs, *lineage.needed_by):
        nodes.setdefault(str(defined), LineageNode(str(defined), defined.kind, defined.name))
    for made, sources in lineage.needs.items():
        edges.update((LineageEdge(str(made), str(other), "needs"), None) for other in sources)
    for source, users in lineage.needed_by.items():
        edges.update((LineageEdge(str(other), str(source), "needs"), None) for other in users)
    trained: dict[str, set[int]] = {}
    for service, models in lineage.models.items():
        for each in models:
            line, _, number = each.version.rpartition("@")
            trained.setdefault(line, set()).add(int(number))
            edges[LineageEdge(f"model:{line}", f"feature_service {service}", "trained with")] = None
    for line, numbers in trained.items():
        key, plural = f"model:{line}", "s" if len(numbers) != 1 else ""
        facts = {"oldest": f"{line}@{min(numbers)}", "newest": f"{line}@{max(numbers)}"}
        nodes[key] = LineageNode(key, "model", f"{line}, {len(numbers)} version{plural}", facts)
    return LineageGraph(str(lineage.key), nodes, tuple(edges))


def _line(node: LineageNode, relation: str, *, is_again: bool) -> str:
    what = f"{relation}: " if relation else ""
    facts = "" if is_again else ", ".join(f"{k} {_short(v)}" for k, v in node.facts.items())
    told = f"{what}{node.kind.replace('_', ' ')} {node.title}"
    if is_again:
        return f"{told} (as above)"
    unknown = " [not known, see below]" if node.missing is not None and not node.facts else ""
    return f"{told}{f' ({facts})' if facts else ''}{unknown}"


def _short(value: str) -> str:
    """Digests by their beginning; the JSON has them whole."""
    mark, space, digest = value.rpartition(" ")
    is_digest = len(digest) == 64 and not set(digest) - set("0123456789abcdef")
    return f"{mark}{space}{digest[:12]}" if is_digest else value
