"""The held-out rule, and how a small data set keeps both sides filled."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_catalog.splits import (
    LabelCounts,
    SingleClass,
    TooFewClients,
    heldout_clients,
    is_heldout,
    split_hash,
)

BOTH = LabelCounts(records=4, positives=2)
NEGATIVE = LabelCounts(records=4, positives=0)


def _by_hash(set_name: str, heldout: bool, count: int) -> list[str]:
    """The first clients of a set on one side of the rule, by the rule's own words."""
    clients = []
    number = 0
    while len(clients) < count:
        client = str(number)
        digest = hashlib.sha256(f"flint-dev-v1|{set_name}:{client}".encode()).hexdigest()
        if (int(digest[:12], 16) % 5 == 0) is heldout:
            clients.append(client)
        number += 1
    return clients


def test_heldout_clients_are_those_of_the_rule() -> None:
    training, heldout = _by_hash("ads", False, 8), _by_hash("ads", True, 3)
    labels = dict.fromkeys(training + heldout, BOTH)
    assert heldout_clients("ads", labels) == set(heldout)


def test_split_depends_on_the_set_name() -> None:
    clients = [str(n) for n in range(200)]
    assert [is_heldout("ads", c) for c in clients] != [is_heldout("search", c) for c in clients]


def test_without_a_client_of_the_rule_the_smallest_hash_with_both_labels_is_held_out() -> None:
    clients = _by_hash("tiny", False, 4)
    by_hash = sorted(clients, key=lambda c: split_hash("tiny", c))
    labels = dict.fromkeys(clients, BOTH) | {by_hash[0]: NEGATIVE}
    assert heldout_clients("tiny", labels) == {by_hash[1]}


def test_when_the_rule_takes_all_clients_one_still_trains() -> None:
    clients = _by_hash("tiny", True, 3)
    by_hash = sorted(clients, key=lambda c: split_hash("tiny", c))
    assert heldout_clients("tiny", dict.fromkeys(clients, BOTH)) == set(by_hash[:2])


def test_one_client_is_too_few() -> None:
    with pytest.raises(TooFewClients, match="only one client"):
        heldout_clients("tiny", {"a": BOTH})


def test_heldout_records_of_one_class_are_refused() -> None:
    training, heldout = _by_hash("ads", False, 3), _by_hash("ads", True, 2)
    labels = dict.fromkeys(training, BOTH) | dict.fromkeys(heldout, NEGATIVE)
    with pytest.raises(SingleClass, match="all 8 records of its 2 held-out clients are labelled 0"):
        heldout_clients("ads", labels)


def test_training_records_of_one_class_are_refused() -> None:
    training, heldout = _by_hash("ads", False, 3), _by_hash("ads", True, 2)
    labels = dict.fromkeys(training, LabelCounts(1, 1)) | dict.fromkeys(heldout, BOTH)
    with pytest.raises(SingleClass, match="training clients are labelled 1"):
        heldout_clients("ads", labels)


@given(st.sets(st.text(max_size=5), min_size=2, max_size=30), st.text(max_size=8))
def test_both_sides_always_have_a_client(clients: set[str], set_name: str) -> None:
    heldout = heldout_clients(set_name, dict.fromkeys(clients, BOTH))
    assert 0 < len(heldout) < len(clients)
    assert heldout <= clients
