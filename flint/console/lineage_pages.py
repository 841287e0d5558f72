"""Lineage as a drawing and as a table: of a model version, and of a definition."""

from fastapi import APIRouter

from feature_catalog.lineage import LineageGraph, LineageNode
from feature_catalog.model_lineage import lineage_of_version
from flint.catalog_view import lineage_of
from flint.console.graph_drawing import simplified
from flint.console.pages import Catalog, Data, add_page
from flint.lineage_view import definition_graph, describe_graph

router = APIRouter()

_DEFINITIONS = ("entity", "asset", "feature_view", "feature_service")


def model_lineage(catalog: Catalog, name: str, which: str) -> Data:
    """What a model version was made from."""
    version = catalog.models.resolve(f"{name}@{which}")
    graph = lineage_of_version(catalog.engine, version.id)
    return _page(graph, f"/models/{name}/{version.number}")


def definition_lineage(catalog: Catalog, kind: str, name: str) -> Data:
    """What a definition needs, and what came of it."""
    found = lineage_of(catalog.features, catalog.features.find(f"{kind}/{name}"))
    return _page(definition_graph(found), f"/definitions/{kind}/{name}")


def _page(graph: LineageGraph, of: str) -> Data:
    drawn, _ = simplified(graph)
    return {
        **describe_graph(graph),
        "title": graph.nodes[graph.root].title,
        "of": of,
        "_graph": graph,
        "_links": {key: link for key, node in graph.nodes.items() if (link := link_to(node))},
        "left_out": len(graph.nodes) - len(drawn),
    }


def link_to(node: LineageNode) -> str | None:
    """Page of a node of a lineage, if it has one."""
    kind, name = node.kind, node.title
    if kind == "model version" and "@" in name:
        line, _, number = name.partition("@")
        return f"/models/{line}/{number}"
    if kind == "model":
        return f"/models/{name.partition(',')[0]}"
    if kind == "job" and name.startswith("j-") and node.missing is None:
        return f"/jobs/{name}"
    if kind == "data set" and "@" in name and node.missing is None:
        dataset, _, number = name.partition("@")
        return f"/datasets/{dataset}/{number}"
    if kind in _DEFINITIONS:
        plain, comma, version = name.partition(", version ")
        return f"/definitions/{kind}/{plain}" + (f"?version={version}" if comma else "")
    return None


add_page(router, "/models/{name}/{which}/lineage", "lineage.html", model_lineage)
add_page(router, "/definitions/{kind}/{name}/lineage", "lineage.html", definition_lineage)
