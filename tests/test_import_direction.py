"""Imports go only leftwards, device code stays light, servers load no training framework."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "modeling",
    "feature_catalog",
    "server",
    "simulation",
    "android_bench",
    "flint",
)
ALLOWED: dict[str, frozenset[str]] = {
    "device_runtime": frozenset(),
    "modeling": frozenset({"device_runtime"}),
    "feature_catalog": frozenset({"device_runtime", "modeling"}),
    "server": frozenset({"device_runtime", "modeling", "feature_catalog"}),
    "simulation": frozenset({"device_runtime", "modeling", "feature_catalog", "server"}),
    "android_bench": frozenset({"device_runtime", "modeling", "feature_catalog", "server"}),
    "flint": frozenset({"device_runtime", *PACKAGES[:-1]}),
}
OURS = frozenset(ALLOWED)
FLOWER_SIDE = ("client_app.py", "sealing_mod.py")
DEVICE_DISTRIBUTIONS = frozenset(
    {"numpy", "ai_edge_litert", "grpc", "google", "cryptography", "cbor2", "mmh3"}
)


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every module a file imports, anywhere in it."""
    package_parts = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield node.lineno, node.module or ""
            else:
                base = package_parts[: len(package_parts) - node.level + 1]
                yield node.lineno, ".".join([*base, *filter(None, [node.module])])


def offences(package: str, is_wrong) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources(package)
        for line, module in imported_modules(path)
        if is_wrong(path, module)
    ]


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_a_package_imports_only_packages_to_its_left(package):
    allowed = ALLOWED[package] | {package}

    def is_wrong(path: Path, module: str) -> bool:
        return module.split(".", maxsplit=1)[0] in OURS - allowed

    assert offences(package, is_wrong) == []


def test_device_runtime_uses_only_what_an_app_can_ship():
    light = DEVICE_DISTRIBUTIONS | {"device_runtime"} | sys.stdlib_module_names

    def is_wrong(path: Path, module: str) -> bool:
        top = module.split(".", maxsplit=1)[0]
        return top not in light and not (top == "flwr" and path.name in FLOWER_SIDE)

    assert offences("device_runtime", is_wrong) == []


@pytest.mark.parametrize("package", sorted(OURS - {"device_runtime", "server", "simulation"}))
def test_no_package_beside_the_adapters_and_the_client_app_imports_flwr(package):
    assert offences(package, lambda path, module: module.split(".")[0] == "flwr") == []


@pytest.mark.parametrize("package", ["server", "simulation"])
def test_in_server_and_simulation_only_the_flower_adapter_imports_flwr(package):
    adapter = ROOT / package / "flower"

    def is_wrong(path: Path, module: str) -> bool:
        return module.split(".", maxsplit=1)[0] == "flwr" and adapter not in path.parents

    assert offences(package, is_wrong) == []


@pytest.mark.parametrize("package", ["feature_catalog", "server"])
def test_training_frameworks_are_never_imported_at_the_top_of_a_module(package):
    heavy = {"torch", "tensorflow", "keras", "ray", "sklearn"}
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(package)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and heavy & {name.split(".")[0] for name in _names(node)}
    ]
    assert found == []


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""]


def modules_of(package: str) -> list[str]:
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sources(package)
        if path.name != "__main__.py"
    ]


PROCESSES = {
    "gateway": ["modeling.spec", "modeling.metrics", "modeling.zoo", *modules_of("server/gateway")],
    "coordinator": [*modules_of("server/coordination"), *modules_of("server/strategies")],
    "aggregator": modules_of("server/aggregation"),
    "enclave": modules_of("server/secure_aggregation"),
    "device": [
        name
        for name in modules_of("device_runtime")
        if f"{name.rpartition('.')[2]}.py" not in FLOWER_SIDE
    ],
    "bench worker": ["android_bench.worker"],
    "supervisor": modules_of("server/operations"),
    "command line": modules_of("flint"),
}
FORBIDDEN = {
    "device": ("torch", "tensorflow", "keras", "ray", "flwr", "sqlalchemy", "pydantic", "pyarrow"),
    # Several of them run: what joins features for training takes 60 MB each.
    "gateway": ("torch", "tensorflow", "keras", "ray", "pyarrow", "duckdb"),
    # Its memory is measured: nothing is loaded that a device would not load.
    "bench worker": ("torch", "tensorflow", "keras", "flwr", "sqlalchemy", "pydantic", "grpc"),
    "command line": ("torch", "tensorflow", "keras", "ray", "sklearn", "matplotlib", "sqlalchemy"),
}


@pytest.mark.parametrize("process", sorted(PROCESSES))
def test_a_process_loads_no_training_framework(process):
    modules = PROCESSES[process]
    if process == "command line":
        modules = ["flint.cli"]
    forbidden = FORBIDDEN.get(process, ("torch", "tensorflow", "keras", "ray"))
    script = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print([name for name in {forbidden!r} if name in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
