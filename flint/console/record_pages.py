"""Data sets, and the audit log."""

from fastapi import APIRouter

from feature_catalog.browsing import CatalogBrowser
from flint.console.pages import PAGE_ROWS, Catalog, Data, Offset, add_page, paging

router = APIRouter()


def datasets(catalog: Catalog, offset: Offset = 0) -> Data:
    """All data sets, the last added first."""
    page = CatalogBrowser(catalog.engine).datasets(PAGE_ROWS, offset)
    return {"datasets": page.rows, "paging": paging(page)}


def dataset(catalog: Catalog, name: str, version: str) -> Data:
    """One data set.

    Raises:
        UnknownDataset: If there is none.
    """
    return {"dataset": catalog.datasets.get(f"{name}@{version}")}


def audit(catalog: Catalog, offset: Offset = 0) -> Data:
    """Who changed what, the last change first."""
    page = CatalogBrowser(catalog.engine).audit_entries(PAGE_ROWS, offset)
    return {"entries": page.rows, "paging": paging(page)}


add_page(router, "/datasets", "datasets.html", datasets)
add_page(router, "/datasets/{name}/{version}", "dataset.html", dataset)
add_page(router, "/audit", "audit.html", audit)
