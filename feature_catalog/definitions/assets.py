"""Vocabularies and embeddings, which transforms read and models share."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from feature_catalog.definitions.bounds import (
    checked_choice,
    checked_name,
    checked_text,
    checked_whole,
)
from feature_catalog.definitions.errors import InvalidDefinition, refuse
from feature_catalog.definitions.fields import checked_documentation
from feature_catalog.definitions.quantities import checked_bytes

MAX_VERSION = 10**9
MAX_ENTRIES = 2**31 - 1
MAX_DIMENSION = 65_536

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOCALE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")


class AssetType(StrEnum):
    """What an asset's file is."""

    VOCABULARY = "vocabulary"
    EMBEDDING = "embedding"


@dataclass(frozen=True)
class Asset:
    """A vocabulary (a token a line) or an embedding (rows of numbers), known by its digest.

    Attributes:
        version: Its maker's number; goes up when the content changes.
        sha256: Of the file, 64 hexadecimal digits.
        size_bytes: Of the file.
        entries: Tokens or rows, if known.
        dimension: Numbers in a row of an embedding.
        locale: Language it is for, e.g. ``en`` or ``pt-BR``; empty for all.
        fallback: Asset of the same type a device takes where this one is refused (too large for it)
            or not there.

    Raises:
        DefinitionError: If an attribute is impossible.
    """

    kind: ClassVar[str] = "asset"

    name: str
    type: AssetType
    version: int
    sha256: str
    size_bytes: int
    entries: int | None = None
    dimension: int | None = None
    locale: str = ""
    fallback: str | None = None
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_name(self.name)
        object.__setattr__(self, "type", checked_choice(self.type, "type", AssetType))
        checked_whole(self.version, "version", 1, MAX_VERSION)
        if not isinstance(self.sha256, str) or _SHA256.fullmatch(self.sha256) is None:
            refuse("sha256", self.sha256, "64 small hexadecimal digits, as sha256sum prints them")
        checked_bytes(self.size_bytes, "size_bytes")
        if self.entries is not None:
            checked_whole(self.entries, "entries", 1, MAX_ENTRIES)
        self._check_dimension()
        checked_text(self.locale, "locale")
        if self.locale and _LOCALE.fullmatch(self.locale) is None:
            refuse("locale", self.locale, "a language tag such as en or pt-BR")
        fallback = self.fallback.name if isinstance(self.fallback, Asset) else self.fallback
        if fallback is not None:
            checked_name(fallback, "fallback")
        object.__setattr__(self, "fallback", fallback)
        documented = checked_documentation(self.owner, self.description, self.tags)
        object.__setattr__(self, "tags", documented)

    def _check_dimension(self) -> None:
        if self.type is AssetType.EMBEDDING:
            if self.dimension is None:
                raise InvalidDefinition(
                    "is missing: how many numbers a row of the embedding has; add it",
                    key="dimension",
                )
            checked_whole(self.dimension, "dimension", 1, MAX_DIMENSION)
        elif self.dimension is not None:
            raise InvalidDefinition(
                "is what an embedding has; remove it from a vocabulary", key="dimension"
            )

    def __hash__(self) -> int:
        return hash((self.kind, self.name))
