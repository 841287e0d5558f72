"""A lineage as inline SVG: what was made on the left, what it was made from to its right."""

from collections import Counter
from collections.abc import Mapping, Sequence

from feature_catalog.lineage import LineageEdge, LineageGraph, LineageNode
from flint.console.graph_layout import BOX_HEIGHT, BOX_WIDTH, lay_out
from flint.reports.markup import Html, element
from flint.reports.wording import shortened

MAX_BOXES = 150
_MAX_OF_A_KIND = 24
_PLURAL = {
    "feature": "features",
    "feature_view": "feature views",
    "feature_service": "feature services",
    "entity": "entities",
    "asset": "assets",
    "model": "models",
}
_LETTERS = 24
_WIDE = 1500.0
"""Wider drawings are scrolled, or nobody could read them."""
_MARGIN, _INSET = 8.0, 10.0

Corner = tuple[float, float]


def drawn_graph(graph: LineageGraph, links: Mapping[str, str]) -> Html:
    """A lineage as SVG.

    Args:
        links: Page of each node that has one, by key.
    """
    nodes, edges = simplified(graph)
    layout = lay_out([node.key for node in nodes], [(edge.made, edge.source) for edge in edges])
    width, height = layout.width + 2 * _MARGIN, layout.height + 2 * _MARGIN
    relation = {(edge.made, edge.source): edge.relation for edge in edges}
    paths = [
        element(
            "path",
            element("title", relation[edge]),
            class_="edge",
            d=_curve(corners),
            marker_end="url(#arrow)",
        )
        for edge, corners in layout.edges.items()
    ]
    boxes = [_node(n, layout.boxes[n.key], links, is_root=n.key == graph.root) for n in nodes]
    tip = element("path", d="M0 0 L8 4 L0 8 z", class_="tip")
    arrow = {"viewBox": "0 0 8 8", "refX": 8, "refY": 4, "markerWidth": 7, "markerHeight": 7}
    return element(
        "svg",
        element("title", f"Lineage of {graph.nodes[graph.root].title}"),
        element("defs", element("marker", tip, id="arrow", orient="auto", **arrow)),
        *paths,
        *boxes,
        class_="lineage wide" if width > _WIDE else "lineage",
        viewBox=f"{-_MARGIN:g} {-_MARGIN:g} {width:g} {height:g}",
        width=f"{width:g}",
        height=f"{height:g}",
        role="img",
    )


def simplified(graph: LineageGraph) -> tuple[list[LineageNode], list[LineageEdge]]:
    """What is drawn: many of a kind as one box, and of what is left at most `MAX_BOXES`."""
    counts = Counter(node.kind for node in graph.nodes.values())
    crowds = {kind for kind in _PLURAL if counts[kind] > _MAX_OF_A_KIND}
    nodes: dict[str, LineageNode] = {}
    drawn_as: dict[str, str] = {}
    for node in graph.nodes.values():
        shown = node
        if node.kind in crowds and node.key != graph.root:
            others = counts[node.kind] - (graph.nodes[graph.root].kind == node.kind)
            title = f"{others:,} {_PLURAL[node.kind]}"
            shown = LineageNode(f"all of {node.kind}", node.kind, title)
        drawn_as[node.key] = shown.key
        nodes.setdefault(shown.key, shown)
    kept = list(nodes.values())[:MAX_BOXES]
    keys = {node.key for node in kept}
    edges: dict[tuple[str, str], LineageEdge] = {}
    for edge in graph.edges:
        made, source = drawn_as[edge.made], drawn_as[edge.source]
        if made != source and made in keys and source in keys:
            edges.setdefault((made, source), LineageEdge(made, source, edge.relation))
    return kept, list(edges.values())


def _node(node: LineageNode, at: Corner, links: Mapping[str, str], *, is_root: bool) -> Html:
    x, y = at
    left = f"{x + _INSET:.1f}"
    told = "; ".join(f"{name}: {value}" for name, value in node.facts.items())
    box = element(
        "g",
        element("title", "; ".join(part for part in (node.title, told, node.missing) if part)),
        element("rect", x=f"{x:.1f}", y=f"{y:.1f}", width=BOX_WIDTH, height=BOX_HEIGHT, rx=6),
        element("text", node.kind.replace("_", " "), class_="kind", x=left, y=f"{y + 16:.1f}"),
        element("text", shortened(node.title, _LETTERS), x=left, y=f"{y + 34:.1f}"),
        class_="node" + (" root" if is_root else "") + (" unknown" if node.missing else ""),
    )
    link = links.get(node.key)
    return box if link is None else element("a", box, href=link)


def _curve(corners: Sequence[Corner]) -> str:
    """Through all corners, level at each."""
    (x, y), *rest = corners
    path = [f"M{x:.1f} {y:.1f}"]
    for to_x, to_y in rest:
        if to_y == y:
            path.append(f"L{to_x:.1f} {to_y:.1f}")
        else:
            middle = (x + to_x) / 2
            path.append(f"C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    return " ".join(path)
