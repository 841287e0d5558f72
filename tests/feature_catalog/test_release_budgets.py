"""Compare-and-set of release budgets on a real Postgres."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from feature_catalog.release_budgets import ReleaseBudgets, StoredBudget

FIRST, SECOND, OTHER = (StoredBudget(n, bytes([n]) * 32) for n in (0, 1, 2))


@pytest.fixture
def budgets(engine):
    return ReleaseBudgets(engine)


def test_a_budget_begins_with_nothing_and_advances_from_what_is_stored(budgets):
    assert budgets.find("j", 0) is None
    assert budgets.newest_version("j") == -1
    assert budgets.advance("j", 0, None, FIRST, "r1")
    assert budgets.advance("j", 0, FIRST, SECOND, "r2")
    assert budgets.find("j", 0) == SECOND


def test_whoever_has_another_state_in_mind_changes_nothing(budgets):
    assert budgets.advance("j", 0, None, FIRST, "r1")
    assert not budgets.advance("j", 0, None, OTHER, "r2")
    assert not budgets.advance("j", 0, SECOND, OTHER, "r3")
    assert not budgets.advance("j", 0, StoredBudget(0, b"x" * 32), OTHER, "r3")
    assert not budgets.advance("j", 1, FIRST, OTHER, "r3"), "another slot has released nothing"
    assert budgets.find("j", 0) == FIRST


def test_of_many_at_once_one_advances(budgets):
    budgets.advance("j", 0, None, FIRST, "r1")
    with ThreadPoolExecutor(8) as pool:
        won = list(
            pool.map(
                lambda n: budgets.advance("j", 0, FIRST, StoredBudget(1, bytes([n]) * 32), f"r{n}"),
                range(8),
            )
        )
    assert won.count(True) == 1


def test_the_newest_version_is_that_of_any_slot(budgets):
    budgets.advance("j", 0, None, StoredBudget(3, b"a" * 32), "r1")
    budgets.advance("j", 1, None, StoredBudget(5, b"b" * 32), "r1")
    budgets.advance("k", 0, None, StoredBudget(9, b"c" * 32), "r1")
    assert budgets.newest_version("j") == 5
