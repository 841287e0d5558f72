"""YAML as configuration files mean it: YAML 1.2's core types, no duplicate keys, bounded size.

PyYAML follows YAML 1.1, in which ``1e-3`` is text, ``no`` is false, ``010`` is eight and ``1:30``
is ninety. A job file must not mean something else than it says, so scalars are read by the rules of
YAML 1.2 (section 10.3) and everything that lets a small file grow (aliases, nesting) has a limit.
"""

import math
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

MAX_TEXT_BYTES = 64 * 1024
MAX_DEPTH = 16
MAX_ALIASES = 50
MAX_NODES = 10_000


class StrictYamlError(ValueError):
    """The text is not acceptable YAML; the message says what and where, without the file's name."""


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 core scalars, no duplicate keys, bounded depth and aliases."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    # PyYAML fills this class attribute through add_implicit_resolver below.

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MAX_ALIASES:
                raise StrictYamlError(f"more than {MAX_ALIASES} aliases (*name); write values out")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise StrictYamlError(f"line {self.line + 1}: nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first_line: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise StrictYamlError(f"line {line}: key {key!r} is not a word; quote it")
            if key in first_line:
                raise StrictYamlError(
                    f"line {line}: key {key!r} is already given on line {first_line[key]}; keep one"
                )
            first_line[key] = line
        return super().construct_mapping(node, deep=deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leave ``<<`` alone: YAML 1.2 has no merge keys, so it is a key like any other."""


def _construct_int(loader: _CoreLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    if len(text) > 40:
        line = node.start_mark.line + 1
        raise StrictYamlError(f"line {line}: a number of {len(text)} digits")
    return int(text)


def _construct_float(loader: _CoreLoader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    if text.endswith(".inf"):
        return -math.inf if text.startswith("-") else math.inf
    return math.nan if text == ".nan" else float(text)


_CORE_SCALARS = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
)
for _name, _pattern, _first in _CORE_SCALARS:
    # PyYAML looks resolvers up by first character; the empty scalar is looked up under "".
    _CoreLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}",
        re.compile(_pattern),
        ["" if c == "\0" else c for c in _first],
    )
_CoreLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_CoreLoader.add_constructor("tag:yaml.org,2002:float", _construct_float)


class _CoreDumper(yaml.SafeDumper):
    """SafeDumper whose texts `load_mapping` reads back as texts."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        """Write every value out."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    rules = _CoreLoader.yaml_implicit_resolvers.get(text[:1], [])
    is_other = any(pattern.match(text) for _, pattern in rules)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if is_other else None)


_CoreDumper.add_representer(str, _represent_text)


def dump_mapping(value: Mapping[str, Any]) -> str:
    """Write a mapping of plain values so that `load_mapping` reads it back."""
    text: str = yaml.dump(
        dict(value), Dumper=_CoreDumper, sort_keys=False, allow_unicode=True, width=100
    )
    return text


def read_text(path: Path, *, what: str, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a file that is to be parsed.

    Args:
        what: What the file should be, e.g. ``"job file"``.
        max_bytes: Larger files are refused.

    Raises:
        StrictYamlError: If it is not there, not readable, too large or not UTF-8; the message
            names the path and the mend.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise StrictYamlError(f"there is no {what} {path}; give the path of a YAML file") from error
    except OSError as error:
        raise StrictYamlError(f"cannot read {path}: {error.strerror}; give a YAML file") from error
    if len(raw) > max_bytes:
        raise StrictYamlError(
            f"{path} is larger than {max_bytes} bytes, so it is no {what}; give a smaller file"
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StrictYamlError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error


def load_mapping(
    text: str, *, max_bytes: int = MAX_TEXT_BYTES, max_nodes: int = MAX_NODES
) -> dict[str, Any]:
    """Parse one YAML document that is a mapping.

    Args:
        max_bytes: Longer texts are refused.
        max_nodes: Most values, keys and blocks, once aliases are expanded.

    Raises:
        StrictYamlError: If it is not, or is too large, too deep, or says a key twice.
    """
    text_bytes = len(text.encode("utf-8", "surrogatepass"))
    if text_bytes > max_bytes:
        raise StrictYamlError(f"{text_bytes} bytes long; at most {max_bytes} are read")
    try:
        value = _load_single(text, max_nodes)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise StrictYamlError(f"{where}{said}") from error
    except yaml.YAMLError as error:  # unprintable characters
        raise StrictYamlError(" ".join(str(error).split())) from error
    if not isinstance(value, dict):
        found = "empty" if value is None else f"a {_kind(value)}"
        raise StrictYamlError(f"the file is {found}; it must be a mapping of keys to values")
    return value


def _load_single(text: str, max_nodes: int) -> object:
    loader = _CoreLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_large(node, max_nodes)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_large(root: yaml.Node, max_nodes: int) -> None:
    """Count nodes with every alias expanded: aliases of aliases grow exponentially, or for ever."""
    stack, count = [root], 0
    while stack:
        node = stack.pop()
        count += 1
        if count > max_nodes:
            raise StrictYamlError(f"more than {max_nodes} values once aliases (*name) are expanded")
        if isinstance(node, yaml.MappingNode):
            stack.extend(part for pair in node.value for part in pair)
        elif isinstance(node, yaml.SequenceNode):
            stack.extend(node.value)


def _kind(value: object) -> str:
    return "list" if isinstance(value, list) else "single value"
