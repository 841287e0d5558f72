"""Models and their versions: metrics, promotions, where each came from."""

from fastapi import APIRouter

from feature_catalog.browsing import MAX_POINTS, CatalogBrowser
from feature_catalog.model_store import UnknownVersion
from flint.console.pages import PAGE_ROWS, Catalog, Data, Offset, add_page, paging
from flint.version_view import describe, reference

router = APIRouter()


def models(catalog: Catalog, offset: Offset = 0) -> Data:
    """Names under which versions are kept."""
    page = CatalogBrowser(catalog.engine).lines(PAGE_ROWS, offset)
    return {"lines": page.rows, "paging": paging(page)}


def model(catalog: Catalog, name: str, offset: Offset = 0) -> Data:
    """One model: its metric by version, its promotions, its versions.

    Raises:
        UnknownVersion: If there is no such model.
    """
    browser = CatalogBrowser(catalog.engine)
    latest = catalog.models.resolve(name)
    page = browser.versions(name, PAGE_ROWS, offset)
    return {
        "name": name,
        "latest": describe(latest),
        "best": _number(catalog, name, "best"),
        "production": _number(catalog, name, "production"),
        "points": browser.metric_points(name=name),
        "most_points": MAX_POINTS,
        "promotions": browser.promotions(name, PAGE_ROWS).rows,
        "versions": [
            {
                **describe(each),
                "created_at": each.created_at,
                "updates": each.strategy_state.get("totals", {}).get("updates"),
            }
            for each in page.rows
        ],
        "paging": paging(page),
    }


def version(catalog: Catalog, name: str, which: str) -> Data:
    """One version, all that is known of it.

    Raises:
        UnknownVersion: If there is none.
    """
    found = catalog.models.resolve(f"{name}@{which}")
    described = describe(found)
    totals = found.strategy_state.get("totals", {})
    return {
        **described,
        "created_at": found.created_at,
        "contract_sha256": found.contract_sha256,
        "service": _service(catalog, described["feature_contract_sha256"]),
        "totals": totals,
        "releases": len(found.release_ids),
        "is_production": _number(catalog, name, "production") == found.number,
        "is_best": _number(catalog, name, "best") == found.number,
        "reference": reference(found),
    }


def _number(catalog: Catalog, name: str, alias: str) -> int | None:
    try:
        return catalog.models.resolve(f"{name}@{alias}").number
    except UnknownVersion:
        return None


def _service(catalog: Catalog, contract_sha256: str | None) -> str | None:
    """Name of the service whose contract this is; None where the catalog has no such contract."""
    if contract_sha256 is None:
        return None
    return CatalogBrowser(catalog.engine).service_of_contract(bytes.fromhex(contract_sha256))


add_page(router, "/models", "models.html", models)
add_page(router, "/models/{name}", "model.html", model)
add_page(router, "/models/{name}/{which}", "version.html", version)
