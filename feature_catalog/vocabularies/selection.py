"""Which of a column's tokens make a vocabulary, and in which order.

Most frequent first, equal ones in the order of their code points (which is that of their UTF-8
bytes): the same data give the same file, and a smaller vocabulary is the beginning of a larger one.
So ids that both have mean the same, and the smaller may stand in as the larger's fallback.
"""

from dataclasses import dataclass

from device_runtime.errors import FlintError
from device_runtime.transform_assets import MAX_ASSET_BYTES, Vocabulary
from feature_catalog.vocabularies.counts import TokenCounts


class EmptyVocabulary(FlintError):
    """Limits under which no token is left, or data without any."""

    code = "FLN-2992"


class ImpossibleLimits(FlintError):
    """Limits of a vocabulary that cannot be."""

    code = "FLN-2993"


@dataclass(frozen=True, slots=True)
class VocabularyLimits:
    """Of the vocabulary that is made.

    Attributes:
        min_count: A token occurs at least so often.
        min_clients: With at least so many clients: a token of one client alone names it.
        max_entries: At most so many tokens.
        max_bytes: At most so many bytes of the file.
    """

    min_count: int = 1
    min_clients: int = 1
    max_entries: int | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("min_count", "min_clients", "max_entries", "max_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ImpossibleLimits(
                    f"--{name.replace('_', '-')} is {value}; give a number of at least 1"
                )


@dataclass(frozen=True, slots=True)
class BuiltVocabulary:
    """A vocabulary and how much of its data it covers.

    Attributes:
        distinct: Different tokens in the data.
        total: Tokens in the data, repeated ones too.
        covered: Those of them that are in the vocabulary.
        unstorable: Different tokens that no vocabulary file holds: empty, or with a line feed.
        rare: Different tokens below ``min_count`` or ``min_clients``.
        cut: Different tokens beyond ``max_entries`` or ``max_bytes``.
    """

    vocabulary: Vocabulary
    distinct: int
    total: int
    covered: int
    unstorable: int
    rare: int
    cut: int

    @property
    def coverage(self) -> float:
        """Share of the data's tokens that are in the vocabulary."""
        return self.covered / self.total


def by_frequency(counts: TokenCounts) -> list[str]:
    """A column's tokens, most frequent first, ties in order of code points."""
    occurrences = counts.occurrences
    return sorted(occurrences, key=lambda token: (-occurrences[token], token))


def select_vocabulary(counts: TokenCounts, limits: VocabularyLimits) -> BuiltVocabulary:
    """The vocabulary of a column within limits.

    Raises:
        EmptyVocabulary: If no token is left.
        ImpossibleLimits: If clients shall be counted and were not.
    """
    occurrences, clients = counts.occurrences, counts.clients
    if limits.min_clients > 1 and clients is None:
        raise ImpossibleLimits(
            "--min-clients needs to know whose rows they are; name the column with --client"
        )
    storable = [token for token in by_frequency(counts) if token and "\n" not in token]
    frequent = [
        token
        for token in storable
        if occurrences[token] >= limits.min_count
        and (clients is None or clients[token] >= limits.min_clients)
    ]
    kept = _within_bytes(frequent[: limits.max_entries], limits.max_bytes or MAX_ASSET_BYTES)
    if not kept:
        raise EmptyVocabulary(_why_empty(counts, has_storable=bool(storable)))
    return BuiltVocabulary(
        vocabulary=Vocabulary.of(tuple(kept)),
        distinct=len(occurrences),
        total=counts.total,
        covered=sum(occurrences[token] for token in kept),
        unstorable=len(occurrences) - len(storable),
        rare=len(storable) - len(frequent),
        cut=len(frequent) - len(kept),
    )


def _why_empty(counts: TokenCounts, *, has_storable: bool) -> str:
    if not counts.occurrences:
        return f"column {counts.column} has no tokens, only missing values; name another"
    if not has_storable:
        return (
            f"every token of {counts.column} is empty or holds a line feed, which no vocabulary "
            "can hold; hash the column instead"
        )
    return (
        f"no token of {counts.column} is left of {len(counts.occurrences)} different ones; lower "
        "--min-count or --min-clients, or raise --max-bytes"
    )


def _within_bytes(tokens: list[str], max_bytes: int) -> list[str]:
    """The beginning that fits: never one later that is shorter, or ids would differ."""
    size = 0
    for number, token in enumerate(tokens):
        size += len(token.encode()) + 1
        if size > max_bytes:
            return tokens[:number]
    return tokens
