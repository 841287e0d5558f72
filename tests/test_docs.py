"""Every error has one code and one page; every link in the documentation leads somewhere."""

import importlib
import pkgutil
import re
from collections import defaultdict
from pathlib import Path

import pytest

from device_runtime.attestation_provider import AttestationRefusal
from device_runtime.errors import FlintError
from server.gateway.held_back import HeldBackReason
from server.secure_aggregation.release_rules import ReleaseRefusal
from server.update_gate.rejections import RejectionReason

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "errors"
CODE = re.compile(r"^FLN-\d{4}$")
NUMBERED = {
    f"FLN-{int(reason)}"
    for reason in (*RejectionReason, *HeldBackReason, *AttestationRefusal, *ReleaseRefusal)
}
PACKAGES = (
    *("device_runtime", "modeling", "feature_catalog", "server", "simulation", "android_bench"),
    "flint",
)
NOT_IMPORTED = re.compile(r"(^|\.)(__main__|.*_pb2(_grpc)?)$")


def error_classes() -> list[type[FlintError]]:
    """Every FlintError of the tree, found by importing it."""
    for package in PACKAGES:
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            if not NOT_IMPORTED.search(module.name):
                importlib.import_module(module.name)
    found: list[type[FlintError]] = []
    waiting = [FlintError]
    while waiting:
        cls = waiting.pop()
        found.append(cls)
        waiting += cls.__subclasses__()
    return [c for c in found if c.__module__.split(".")[0] != "tests"]


@pytest.fixture(scope="module")
def errors() -> list[type[FlintError]]:
    return error_classes()


def test_every_error_class_has_a_code_of_its_own(errors):
    by_code = defaultdict(set)
    for cls in errors:
        assert CODE.match(cls.code), f"{cls.__name__} has code {cls.code!r}"
        if "code" in vars(cls):
            by_code[cls.code].add(f"{cls.__module__}.{cls.__qualname__}")
    assert {code: names for code, names in by_code.items() if len(names) > 1} == {}


def test_a_class_without_a_code_of_its_own_is_a_base_of_ones_that_have(errors):
    inherited = [c.__qualname__ for c in errors if "code" not in vars(c) and not c.__subclasses__()]
    assert inherited == []


def test_every_code_has_a_page(errors):
    codes = {cls.code for cls in errors} | NUMBERED
    assert sorted(code for code in codes if not (PAGES / f"{code}.md").is_file()) == []


def test_every_page_is_of_a_code_that_can_be_raised(errors):
    codes = {cls.code for cls in errors} | NUMBERED
    assert sorted(page.stem for page in PAGES.glob("*.md") if page.stem not in codes) == []


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_is_titled_with_its_code_and_says_how_to_mend(page):
    text = page.read_text()
    assert text.startswith(f"# {page.stem}: ")
    assert "mend" in text.lower()
    assert 5 <= len(text.splitlines()) <= 40


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*.md")])


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document):
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [link for link in links if not re.match(r"[a-z]+:|#", link)]
    broken = [link for link in local if not (document.parent / link.split("#")[0]).exists()]
    assert broken == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_named_in_documents_exist(document):
    """Paths in backquotes that begin with one of our folders are promises too."""
    named = re.findall(
        r"`((?:docs|examples|benchmarks|tests|tools|flint|server|modeling|feature_catalog|"
        r"device_runtime|simulation)/[\w./-]+\.(?:py|md|yaml|proto|json|sh|txt))`",
        document.read_text(),
    )
    assert [name for name in named if not (ROOT / name).exists()] == []
