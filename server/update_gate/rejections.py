"""Why one update is refused: numbered reasons, stable for operators and for devices."""

from dataclasses import dataclass
from enum import IntEnum


class RejectionReason(IntEnum):
    """Numbered reasons; each has a page in docs/errors (``FLN-<number>``).

    20xx are found by the envelope gate, on bytes it does not open; 21xx by the content gate, where
    the plaintext lives; 22xx by an enclave, of what was sealed to it.
    """

    UNKNOWN_TASK = 2001
    WRONG_CLIENT = 2002
    DIGEST_MISMATCH = 2003
    ANSWERED_WITH_OTHER_DIGEST = 2004
    CONTRACT_MISMATCH = 2005
    TOO_LARGE = 2006
    BAD_SIGNATURE = 2007
    MALFORMED = 2101
    WRONG_NAMES = 2102
    WRONG_SHAPE = 2103
    WRONG_DTYPE = 2104
    NOT_FINITE = 2105
    NORM_EXCEEDED = 2106
    NON_POSITIVE_EXAMPLES = 2107
    TOO_MANY_EXAMPLES = 2108
    WRONG_ENCODING = 2109
    BAD_POSITIONS = 2110
    BAD_SCALES = 2111
    NOT_SEALED = 2201
    OTHER_ENCLAVE_KEY = 2202
    NOT_OPENED = 2203
    MALFORMED_CONTENT = 2204
    ALREADY_RELEASED = 2205
    VERSION_RELEASED = 2206
    UNKNOWN_HOST_APP = 2207
    WRONG_MASKED_SIZE = 2208
    AGGREGATE_FULL = 2209
    PAD_USED_TWICE = 2210


@dataclass(frozen=True, slots=True)
class Rejection:
    """One update refused.

    Attributes:
        detail: One sentence with the value seen and the limit.
    """

    reason: RejectionReason
    detail: str
