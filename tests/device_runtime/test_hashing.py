"""Feature hashing against published MurmurHash3 vectors and a pure-Python oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.hashing import encode_bag, hash_bucket

# Vectors of MurmurHash3_x86_32 as collected at https://stackoverflow.com/a/31929528 (Ian Boyd).
# All are valid UTF-8, since tokens are text.
PUBLISHED = [
    ("", 0x00000000, 0x00000000),
    ("", 0x00000001, 0x514E28B7),
    ("", 0xFFFFFFFF, 0x81F16F39),
    ("\x00\x00\x00\x00", 0x00000000, 0x2362F9DE),
    ("\x00\x00\x00", 0x00000000, 0x85F0B427),
    ("\x00\x00", 0x00000000, 0x30F4C306),
    ("\x00", 0x00000000, 0x514E28B7),
    ("aaaa", 0x9747B28C, 0x5A97808A),
    ("aaa", 0x9747B28C, 0x283E0130),
    ("aa", 0x9747B28C, 0x5D211726),
    ("a", 0x9747B28C, 0x7FA09EA6),
    ("abcd", 0x9747B28C, 0xF0478627),
    ("abc", 0x9747B28C, 0xC84A62DD),
    ("ab", 0x9747B28C, 0x74875592),
    ("Hello, world!", 0x9747B28C, 0x24884CBA),
    ("ππππππππ", 0x9747B28C, 0xD58063C1),
    ("a" * 256, 0x9747B28C, 0x37405BDC),
    ("abc", 0x00000000, 0xB3DD93FA),
    (
        "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        0x00000000,
        0xEE925B90,
    ),
    ("The quick brown fox jumps over the lazy dog", 0x9747B28C, 0x2FA826CD),
]


def murmur3_32(data: bytes, seed: int) -> int:
    """The reference algorithm, transcribed from the published C code."""

    def rotl(x: int, r: int) -> int:
        return ((x << r) | (x >> (32 - r))) & 0xFFFFFFFF

    def scramble(k: int) -> int:
        return rotl(k * 0xCC9E2D51 & 0xFFFFFFFF, 15) * 0x1B873593 & 0xFFFFFFFF

    h = seed
    body = len(data) // 4 * 4
    for start in range(0, body, 4):
        h = rotl(h ^ scramble(int.from_bytes(data[start : start + 4], "little")), 13)
        h = (h * 5 + 0xE6546B64) & 0xFFFFFFFF
    h ^= scramble(int.from_bytes(data[body:], "little")) ^ len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return h ^ h >> 16


@pytest.mark.parametrize(("token", "seed", "expected"), PUBLISHED)
def test_hash_is_murmur3_x86_32(token: str, seed: int, expected: int) -> None:
    assert murmur3_32(token.encode(), seed) == expected
    assert hash_bucket(token, 2**32, seed) == expected


@given(st.text(), st.integers(1, 2**31), st.integers(0, 2**32 - 1))
def test_bucket_is_the_hash_modulo_the_buckets(token: str, buckets: int, seed: int) -> None:
    assert hash_bucket(token, buckets, seed) == murmur3_32(token.encode(), seed) % buckets


@given(st.lists(st.text(max_size=6), max_size=100), st.integers(1, 50), st.integers(1, 70))
def test_bag_is_the_first_distinct_buckets_then_padding(
    tokens: list[str], buckets: int, max_ids: int
) -> None:
    record = encode_bag(tokens, buckets, seed=7, max_ids=max_ids)

    distinct: list[int] = []
    for token in tokens:
        bucket = murmur3_32(token.encode(), 7) % buckets
        if bucket not in distinct:
            distinct.append(bucket)
    expected = (distinct + [-1] * max_ids)[:max_ids]
    assert record.dtype == np.int32
    assert record.tolist() == expected


def test_another_seed_gives_other_buckets() -> None:
    words = [f"word{i}" for i in range(50)]
    assert encode_bag(words, 1024, seed=0).tolist() != encode_bag(words, 1024, seed=1).tolist()
