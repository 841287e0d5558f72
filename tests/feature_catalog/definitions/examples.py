"""The example's definitions, and a way to change them by their text."""

from pathlib import Path

from feature_catalog.definitions.catalog_set import DefinitionSet, check_set, key_of
from feature_catalog.definitions.files import parse_definitions

FOLDER = Path(__file__).parents[3] / "examples" / "features"
TEXT = (FOLDER / "features.yaml").read_text()


def parsed(text: str = TEXT) -> DefinitionSet:
    """A checked set from the text of a file."""
    found = {key_of(each): each for each in parse_definitions(text)}
    given = DefinitionSet(found, dict.fromkeys(found, "features.yaml"))
    check_set(given)
    return given


def with_change(old: str, new: str, text: str = TEXT) -> str:
    """The example's text, ``old`` exchanged for ``new`` where it comes first."""
    assert old in text
    return text.replace(old, new, 1)
