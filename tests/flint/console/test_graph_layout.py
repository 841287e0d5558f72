"""A lineage is drawn so that it can be read: layers, no overlaps, every edge from box to box."""

from itertools import combinations, pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_catalog.lineage import LineageEdge, LineageGraph, LineageNode
from flint.console.graph_drawing import MAX_BOXES, drawn_graph, simplified
from flint.console.graph_layout import BOX_HEIGHT, BOX_WIDTH, lay_out

SVG = "{http://www.w3.org/2000/svg}"


@st.composite
def acyclic(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]]]:
    keys = [f"n{n}" for n in range(draw(st.integers(1, 14)))]
    pairs = list(combinations(keys, 2))
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=30)) if pairs else []
    return draw(st.permutations(keys)), chosen


@settings(max_examples=60)
@given(acyclic())
def test_what_was_made_is_left_of_its_sources_and_no_box_overlaps(graph):
    keys, edges = graph
    layout = lay_out(keys, edges)
    for made, source in edges:
        assert layout.boxes[made][0] + BOX_WIDTH < layout.boxes[source][0]
    for one, other in combinations(layout.boxes.values(), 2):
        assert abs(one[0] - other[0]) >= BOX_WIDTH or abs(one[1] - other[1]) >= BOX_HEIGHT
    for x, y in layout.boxes.values():
        assert 0 <= x <= layout.width - BOX_WIDTH + 1e-6
        assert -1e-6 <= y <= layout.height - BOX_HEIGHT + 1e-6


@settings(max_examples=60)
@given(acyclic())
def test_every_edge_goes_to_the_right_from_its_box_to_the_other(graph):
    keys, edges = graph
    layout = lay_out(keys, edges)
    assert set(layout.edges) == set(edges)
    for (made, source), corners in layout.edges.items():
        (made_x, made_y), (source_x, source_y) = layout.boxes[made], layout.boxes[source]
        assert corners[0] == pytest.approx((made_x + BOX_WIDTH, made_y + BOX_HEIGHT / 2))
        assert corners[-1] == pytest.approx((source_x, source_y + BOX_HEIGHT / 2))
        assert all(before[0] <= after[0] for before, after in pairwise(corners))
        # Between its ends it passes beside every box.
        for before, after in pairwise(corners[1:-1]):
            if before[1] == after[1]:
                inside = [
                    key
                    for key, (x, y) in layout.boxes.items()
                    if x < after[0] and before[0] < x + BOX_WIDTH and y < before[1] < y + BOX_HEIGHT
                ]
                assert inside == []


def test_a_circle_is_drawn_without_the_edge_that_closes_it():
    layout = lay_out(["a", "b", "c"], [("a", "b"), ("b", "c"), ("c", "b")])
    assert set(layout.edges) < {("a", "b"), ("b", "c"), ("c", "b")}
    assert set(layout.boxes) == {"a", "b", "c"}


def graph_of(features: int) -> LineageGraph:
    """A service that serves some features of one view."""
    nodes = {key: LineageNode(key, kind, key) for key, kind in (("s", "feature_service"),)}
    nodes["view"] = LineageNode("view", "feature_view", "view")
    edges = []
    for number in range(features):
        key = f"f{number}"
        nodes[key] = LineageNode(key, "feature", key)
        edges += [LineageEdge("s", key, "serves"), LineageEdge(key, "view", "is")]
    return LineageGraph("s", nodes, tuple(edges))


def test_many_of_a_kind_are_drawn_as_one():
    nodes, edges = simplified(graph_of(1000))
    assert [node.title for node in nodes] == ["s", "view", "1,000 features"]
    assert [(edge.made, edge.source) for edge in edges] == [
        ("s", "all of feature"),
        ("all of feature", "view"),
    ]
    nodes, edges = simplified(graph_of(5))
    assert (len(nodes), len(edges)) == (7, 10)


def test_a_drawing_is_bounded_however_much_there_is():
    nodes = {f"n{n}": LineageNode(f"n{n}", "job", f"n{n}") for n in range(1000)}
    edges = tuple(LineageEdge("n0", f"n{n}", "of") for n in range(1, 1000))
    kept, drawn = simplified(LineageGraph("n0", nodes, edges))
    assert (len(kept), len(drawn)) == (MAX_BOXES, MAX_BOXES - 1)


def test_hostile_names_are_text_in_the_drawing():
    name = "</text><script>alert(1)</script>\x00"
    node = LineageNode("k", name, name, {name: name}, missing=name)
    svg = drawn_graph(LineageGraph("k", {"k": node}, ()), {"k": f'/x"{name}'})
    root = ET.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    assert root.find(f".//{SVG}script") is None
    assert [each.get("href") for each in root.iter(f"{SVG}a")] == [
        '/x"</text><script>alert(1)</script>\N{REPLACEMENT CHARACTER}'
    ]
