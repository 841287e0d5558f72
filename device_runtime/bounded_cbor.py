"""CBOR (RFC 8949) of strangers, decoded by cbor2 after its shape was found to be a plain one.

cbor2 decodes far more than attestation documents use: tags make it build dates, regular
expressions, MIME messages and numbers of any size. A walk over the heads of the items, before
anything is built, admits only what AWS Nitro's documents consist of: integers, byte and text
strings of definite length, arrays, maps, true, false and null, few and not deep.
"""

_BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = 2, 3, 4, 5, 6, 7
_PLAIN_SIMPLE = (20, 21, 22)  # false, true, null
_INDEFINITE = 31
_BREAK = 0xFF


class UnfitCbor(ValueError):
    """The bytes are not CBOR, or CBOR of a kind no document consists of."""


def decode_cbor(data: bytes, *, most_items: int, most_depth: int) -> object:
    """Decode one item that takes all of ``data``.

    Args:
        most_items: How many items ``data`` may consist of, keys and containers included.
        most_depth: How many containers may be within each other.

    Raises:
        UnfitCbor: If it is anything else, nested deeper, has duplicate keys, a tag, a float, or a
            string of indefinite length. Time and memory are linear in ``len(data)``.
    """
    import cbor2

    end = _skim(data, most_items, most_depth)
    if end != len(data):
        raise UnfitCbor(f"it ends after {end} of {len(data)} bytes")
    try:
        return cbor2.loads(data, max_depth=most_depth + 1, allow_duplicate_keys=False)
    except (cbor2.CBORDecodeError, ValueError) as error:
        raise UnfitCbor(str(error)) from error


def encode_cbor(value: object) -> bytes:
    """Encode in the shortest form, keys in canonical order."""
    import cbor2

    return cbor2.dumps(value, canonical=True)


def _skim(data: bytes, most_items: int, most_depth: int) -> int:
    """Where the first item ends; its heads are read one after the other, nothing is built."""
    position = 0
    items = 0
    waiting: list[int | None] = []  # of each open container: items left, None: until a break
    while True:
        if position >= len(data):
            raise UnfitCbor("it ends in the middle of an item")
        if data[position] == _BREAK and waiting and waiting[-1] is None:
            position += 1
            waiting.pop()
        else:
            items += 1
            if items > most_items:
                raise UnfitCbor(f"it consists of more than {most_items} items")
            kind, argument, position = _head(data, position)
            if kind in (_ARRAY, _MAP):
                if len(waiting) >= most_depth:
                    raise UnfitCbor(f"more than {most_depth} containers are within each other")
                if argument != 0:
                    waiting.append(argument and argument * (2 if kind == _MAP else 1))
                    continue
            elif kind in (_BYTES, _TEXT):
                position = _behind_string(data, position, argument)
        _count_ended_item(waiting)
        if not waiting:
            return position


def _behind_string(data: bytes, position: int, length: int | None) -> int:
    if length is None or length > len(data) - position:
        raise UnfitCbor("a string has no definite length, or ends beyond the data")
    return position + length


def _count_ended_item(waiting: list[int | None]) -> None:
    """In the container it is in, which may end with it, as may the one around that."""
    while waiting and (left := waiting[-1]) is not None:
        waiting[-1] = left - 1
        if left > 1:
            return
        waiting.pop()


def _head(data: bytes, position: int) -> tuple[int, int | None, int]:
    """Major type, argument (None: indefinite length) and where the head ends."""
    kind, short = divmod(data[position], 32)
    position += 1
    if kind == _TAG or (kind == _SIMPLE and short not in _PLAIN_SIMPLE):
        raise UnfitCbor("it holds a tag, a float or a value that no document consists of")
    if short < 24:
        return kind, short, position
    if short == _INDEFINITE and kind in (_ARRAY, _MAP):
        return kind, None, position
    width = 1 << (short - 24)
    if short > 27 or position + width > len(data):
        raise UnfitCbor("it ends in the middle of an item")
    return kind, int.from_bytes(data[position : position + width], "big"), position + width
