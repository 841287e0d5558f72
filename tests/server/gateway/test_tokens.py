from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.identity import device_id_of
from server.gateway.tokens import DeviceClaims, TaskClaims, TokenMint

MINT = TokenMint(b"k" * 32)
TASK = TaskClaims("t-1", "j-1", "g-1", 3, "d-1", "boot", 1_700_000_000_000, (b"a" * 32, b"b" * 32))
DEVICE = DeviceClaims("d-1", b"key", "com.example.mail")


def test_a_token_gives_back_what_was_signed():
    assert MINT.open_task(MINT.task_token(TASK)) == TASK
    assert MINT.open_credential(MINT.credential(DEVICE)) == DEVICE


def test_equal_claims_have_equal_tokens_so_a_repeated_lease_is_the_same():
    assert MINT.task_token(TASK) == MINT.task_token(replace(TASK))


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_token_with_any_byte_changed_is_not_ours(position, flip):
    token = bytearray(MINT.task_token(TASK))
    token[position % len(token)] ^= flip
    assert MINT.open_task(bytes(token)) is None


@pytest.mark.parametrize("token", [b"", b"x", b"x" * 32, b"x" * 33, b"x" * 100_000])
def test_what_is_no_token_is_not_ours(token):
    assert MINT.open_task(token) is None
    assert MINT.open_credential(token) is None


def test_another_key_signs_nothing_of_ours():
    assert TokenMint(b"l" * 32).open_task(MINT.task_token(TASK)) is None


def test_a_credential_is_no_task_token_nor_the_other_way_round():
    assert MINT.open_task(MINT.credential(DEVICE)) is None
    assert MINT.open_credential(MINT.task_token(TASK)) is None


def test_a_device_is_named_by_its_key():
    assert device_id_of(b"key") == device_id_of(b"key") != device_id_of(b"other")
    assert len(device_id_of(b"key")) == 34
