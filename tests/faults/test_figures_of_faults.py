"""The arithmetic of the fault benchmarks, and what one client of a thousand may claim."""

import importlib
import random

import numpy as np
import pytest


@pytest.fixture(scope="module")
def soak(killable):
    return importlib.import_module("soak")


def test_one_client_of_a_thousand_has_no_more_than_its_cap(killable):
    corpus = importlib.import_module("hostile_corpus")
    refused = corpus.share_of_the_greedy(None, seed=3)
    assert (refused["refused_with"], refused["share"]) == (2108, 0.0)
    capped = corpus.share_of_the_greedy(corpus.CLAIM, seed=3)
    assert capped["refused_with"] is None
    assert 0 < capped["share"] <= capped["cap"] + 1e-6


def test_the_corpus_has_each_case_once_and_more_than_twenty_kinds(killable):
    corpus = importlib.import_module("tests.faults.hostile_corpus").CORPUS
    assert len({case.name for case in corpus}) == len(corpus)
    assert len({case.family for case in corpus}) >= 20


def test_kinds_of_kills_are_drawn_by_their_weights(killable):
    kills = importlib.import_module("random_kills")
    drawn = kills.draw_kinds(100, random.Random(1))
    assert {kind: drawn.count(kind) for kind in kills.KINDS} == kills.KINDS


def lives(soak, megabytes_per_hour):
    """Two lives of twenty minutes that begin at other heights; noise of a megabyte."""
    noise = np.random.default_rng(1)
    made = []
    for begun_s, height in ((0.0, 100.0), (1500.0, 140.0)):
        seconds = [begun_s + 5.0 * i for i in range(240)]
        rss = [
            (height + megabytes_per_hour * (s - begun_s) / 3600 + noise.normal()) * 1e6
            for s in seconds
        ]
        made.append(soak.Life("gateway", begun_s, seconds, rss, [50] * len(seconds)))
    return made


@pytest.mark.parametrize(("per_hour", "flat"), [(0.0, True), (30.0, False)])
def test_growth_within_lives_is_found_whatever_they_began_with(soak, per_hour, flat):
    found = soak._growth(lives(soak, per_hour), settling_s=60.0)
    assert found["rss_mb"]["per_hour"] == pytest.approx(per_hour, abs=2.0)
    assert found["rss_mb"]["flat"] is flat
    assert found["descriptors"] == {"mean": 50.0, "per_hour": 0.0, "plus_minus": 0.0, "flat": True}
