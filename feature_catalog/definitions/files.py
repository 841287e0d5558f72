"""Reading definitions from files: Python as in a Feast repository, or the same as YAML."""

import contextlib
import importlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import get_args

from feature_catalog.definitions.catalog_set import (
    KINDS_BY_PLURAL,
    DefinitionKey,
    DefinitionSet,
    key_of,
    key_path,
)
from feature_catalog.definitions.errors import (
    DefinitionError,
    DefinitionFileFailed,
    DuplicateDefinition,
    InvalidDefinition,
    UnknownDefinitionKey,
    UnreadableDefinitions,
    did_you_mean,
    shown,
    spelt,
    within,
)
from feature_catalog.definitions.plain import Definition, from_plain
from feature_catalog.strict_yaml import StrictYamlError, load_mapping, read_text

MAX_FILE_BYTES = 512 * 1024
MAX_NODES = 100_000
MAX_FILES = 500
MAX_DEFINITIONS = 5_000

_YAML_ENDINGS = (".yaml", ".yml")
_CLASSES = get_args(Definition)


def load_definitions(paths: Sequence[Path]) -> DefinitionSet:
    """Read the definitions of files, and of all ``.py``, ``.yaml`` and ``.yml`` files of folders.

    Python files are run: every definition that a module holds under a name counts. Nothing is
    looked up elsewhere; `check_set` says whether the definitions fit each other.

    Raises:
        DefinitionError: Or a subclass; one sentence with file, key and mend.
    """
    found: dict[DefinitionKey, Definition] = {}
    places: dict[DefinitionKey, str] = {}
    read: set[Path] = set()
    for path in paths:
        root, files = _files_of(path)
        modules = [file for file in files if file.suffix == ".py" and file.resolve() not in read]
        texts = [file for file in files if file.suffix != ".py" and file.resolve() not in read]
        read |= {file.resolve() for file in files}
        for place, definition in (*_run_modules(root, modules), *_read_texts(root, texts)):
            key = key_of(definition)
            if key in found:
                if found[key] is definition:
                    continue  # one module's, imported by another
                where = "twice" if places[key] == place else f"in {places[key]} too"
                raise DuplicateDefinition(
                    f"is defined {where}; keep one, or rename it", key=key_path(key), source=place
                )
            found[key], places[key] = definition, place
            if len(found) > MAX_DEFINITIONS:
                raise UnreadableDefinitions(
                    f"more than {MAX_DEFINITIONS} definitions; apply them in parts", source=place
                )
    if not found:
        named = ", ".join(str(path) for path in paths)
        raise UnreadableDefinitions(
            f"{named}: there is no definition; define an Entity, FeatureView, Asset or "
            f"FeatureService in Python, or {', '.join(KINDS_BY_PLURAL)} in YAML"
        )
    return DefinitionSet(found, places)


def parse_definitions(text: str, *, source: str = "features.yaml") -> Iterator[Definition]:
    """Read the text of a YAML file of definitions.

    Raises:
        DefinitionError: As `load_definitions`.
    """
    try:
        raw = load_mapping(text, max_bytes=MAX_FILE_BYTES, max_nodes=MAX_NODES)
    except StrictYamlError as error:
        raise UnreadableDefinitions(f"{error}; mend the YAML", source=source) from error
    for section, items in raw.items():
        kind = KINDS_BY_PLURAL.get(section)
        if kind is None:
            known = list(KINDS_BY_PLURAL)
            raise UnknownDefinitionKey(
                f"is not a known key of a file of feature definitions"
                f"{did_you_mean(section, known)}; known are {', '.join(known)}",
                key=spelt(section),
                source=source,
            )
        if not isinstance(items, list):
            raise InvalidDefinition(
                f"= {shown(items)} is not possible; it must be a list", key=section, source=source
            )
        for index, item in enumerate(items):
            with within(_item_path(section, index, item), source):
                definition = from_plain(kind, item)
            yield definition


def _item_path(section: str, index: int, item: object) -> str:
    name = item.get("name") if isinstance(item, dict) else None
    if isinstance(name, str) and name.isidentifier() and len(name) <= 63:
        return f"{section}.{name}"
    return f"{section}[{index}]"


def _files_of(path: Path) -> tuple[Path, list[Path]]:
    """The folder that messages and imports start from, and the files in order of name."""
    if not path.is_dir():
        if not path.exists():
            raise UnreadableDefinitions(
                f"there is no {path}; give a Python or YAML file of definitions, or a folder"
            )
        if path.suffix not in (".py", *_YAML_ENDINGS):
            raise UnreadableDefinitions(
                f"{path} is neither Python (.py) nor YAML (.yaml, .yml); give such a file, or a "
                "folder of them"
            )
        return path.parent, [path]
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix in (".py", *_YAML_ENDINGS)
        and not any(part.startswith((".", "__")) for part in file.relative_to(path).parts)
        and file.is_file()
    ]
    if len(files) > MAX_FILES:
        raise UnreadableDefinitions(
            f"{path} has {len(files)} Python and YAML files, so it is no folder of definitions "
            f"(at most {MAX_FILES}); name the files or a smaller folder"
        )
    return path, files


def _read_texts(root: Path, files: Sequence[Path]) -> Iterator[tuple[str, Definition]]:
    for file in files:
        place = str(file.relative_to(root))
        for definition in parse_definitions(_text_of(file), source=place):
            yield place, definition


def _text_of(file: Path) -> str:
    try:
        return read_text(file, what="file of definitions", max_bytes=MAX_FILE_BYTES)
    except StrictYamlError as error:
        raise UnreadableDefinitions(str(error)) from error


def _run_modules(root: Path, files: Sequence[Path]) -> Iterator[tuple[str, Definition]]:
    if not files:
        return
    names = {_module_name(root, file): file for file in files}
    for file in files:
        _text_of(file)  # refuses what is too large or no text
    with _imports_from(root):
        for name, file in names.items():
            place = str(file.relative_to(root))
            module = _run(name, file, place)
            for value in list(vars(module).values()):
                if isinstance(value, _CLASSES):
                    yield place, value


def _module_name(root: Path, file: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    odd = next((part for part in parts if not part.isidentifier()), None)
    if odd is not None:
        raise UnreadableDefinitions(
            f"{file} cannot be imported, for {odd!r} is no Python name; rename it"
        )
    loaded = sys.modules.get(parts[0])
    if parts[0] in sys.stdlib_module_names or loaded is not None:
        raise UnreadableDefinitions(
            f"{file} is named like the Python module {parts[0]}, which would be taken in its "
            "place; rename it"
        )
    return ".".join(parts)


@contextlib.contextmanager
def _imports_from(root: Path) -> Iterator[None]:
    """Let modules of a folder import each other, and forget them afterwards."""
    known = set(sys.modules)
    path, writes_nothing = list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(root.resolve()))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        # What a definition file prints is no result of ours.
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, writes_nothing
        for name in set(sys.modules) - known:
            if _is_inside(root.resolve(), sys.modules[name]):
                del sys.modules[name]


def _is_inside(root: Path, module: ModuleType) -> bool:
    """Whether a module is a file or folder of ``root``."""
    spec = getattr(module, "__spec__", None)
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec is not None else []
    return any(root in Path(place).parents for place in places if place is not None)


def _run(name: str, file: Path, place: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except DefinitionError as error:
        raise error.within("", _line_of(error, file, place)) from error
    except SyntaxError as error:
        raise DefinitionFileFailed(
            f"is no Python ({error.msg}); mend it", source=f"{place} line {error.lineno}"
        ) from error
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())[:300]
        raise DefinitionFileFailed(
            f"running it raised {type(error).__name__}: {said}; mend the file",
            source=_line_of(error, file, place),
        ) from error


def _line_of(error: BaseException, file: Path, place: str) -> str:
    """The line of a file that an error comes from, in words."""
    own = str(file.resolve())
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == own]
    return f"{place} line {lines[-1]}" if lines else place
