"""Feature services and their contracts: what each is the digest of, what was trained under it."""

import json
from typing import Any

from fastapi import APIRouter

from feature_catalog.browsing import CatalogBrowser
from feature_catalog.definitions.catalog_set import DefinitionKey
from feature_catalog.definitions.plain import to_plain
from flint.console.errors import NoSuchPage
from flint.console.feature_pages import matches
from flint.console.latest_definitions import Definitions
from flint.console.pages import Catalog, Data, Offset, Words, add_page, paging, sliced
from flint.version_view import reference

MAX_CONTRACTS = 50

router = APIRouter()


def contract(catalog: Catalog, service: str, sha256: str) -> Data:
    """One contract: what it is the digest of, and the model versions trained under it."""
    contracts = catalog.features.contracts(service)
    found = [each for each in contracts if each.contract.sha256 == sha256]
    if not found:
        raise NoSuchPage(
            f"{service} never had the contract {sha256[:16]}; its page lists those it had"
        )
    return {
        "service": service,
        "sha256": sha256,
        "is_current": contracts[-1].contract.sha256 == sha256,
        "since": [{"apply_id": each.apply_id, "applied_at": each.applied_at} for each in found],
        "service_version": found[-1].service_version,
        "content": json.loads(found[-1].contract.content_json),
        "models": _trained(CatalogBrowser(catalog.engine), sha256, 50),
    }


def services(catalog: Catalog, state: Definitions, q: Words = "", offset: Offset = 0) -> Data:
    """Feature services with the contract each has now."""
    found = [state.definitions.service(name) for name in state.definitions.names("feature_service")]
    plain = [to_plain(each) for each in found if each is not None]
    page = sliced([each for each in plain if matches(each, q)], offset)
    browser = CatalogBrowser(catalog.engine)
    rows = [
        {
            **each,
            "version": state.versions[DefinitionKey("feature_service", each["name"])],
            "contract_sha256": state.contracts.get(each["name"]),
            "models": browser.trained_with(each["name"]),
        }
        for each in page.rows
    ]
    return {"q": q, "services": rows, "paging": paging(page)}


def service(catalog: Catalog, name: str) -> Data:
    """One service: its features, its contract now and those it had."""
    shown = catalog.features.version(f"feature_service/{name}")
    contracts = catalog.features.contracts(name)
    browser = CatalogBrowser(catalog.engine)
    current = contracts[-1].contract if contracts and shown.definition is not None else None
    return {
        "name": name,
        "version": shown.version,
        "is_deleted": shown.definition is None,
        "definition": None if shown.definition is None else to_plain(shown.definition),
        "content": None if current is None else json.loads(current.content_json),
        "contract_sha256": None if current is None else current.sha256,
        "contracts": [
            {
                "sha256": each.contract.sha256,
                "service_version": each.service_version,
                "apply_id": each.apply_id,
                "applied_at": each.applied_at,
                "models": _trained(browser, each.contract.sha256, 12),
            }
            for each in contracts[: -MAX_CONTRACTS - 1 : -1]
        ],
    }


def _trained(browser: CatalogBrowser, sha256: str, limit: int) -> dict[str, Any]:
    """Number of model versions trained under a contract, and the newest of them."""
    page = browser.trained_under(bytes.fromhex(sha256), limit)
    return {"total": page.total, "newest": [reference(each) for each in page.rows]}


add_page(router, "/services", "services.html", services)
add_page(router, "/services/{name}", "service.html", service)
add_page(router, "/services/{service}/contracts/{sha256}", "contract.html", contract)
