"""What is posted on the board, as the run and another executor see it."""

import os

import numpy as np

from simulation.executors.executor import ClientOutputs
from simulation.executors.task_board import TaskBoard

OUTPUTS = ClientOutputs(losses=True)


def two_views() -> tuple[TaskBoard, TaskBoard]:
    ours = TaskBoard(0, 2, OUTPUTS)
    words, columns = ours.descriptors
    return ours, TaskBoard(1, 2, OUTPUTS, (os.dup(words), os.dup(columns)))


def test_what_is_posted_is_news_until_it_is_finished():
    ours, theirs = two_views()
    assert not theirs.is_news(look=False)
    ours.post(np.array([7, 3]))
    assert theirs.is_news(look=False)
    assert not theirs.read()
    np.testing.assert_array_equal(theirs.posted_versions, [7, 3])
    assert not ours.is_done(1)
    assert not theirs.finish()
    assert ours.is_done(1)
    assert not theirs.is_news(look=True)


def test_who_sleeps_is_rung_and_who_is_awaited_rings():
    ours, theirs = two_views()
    assert theirs.must_sleep()
    assert ours.is_asleep(1)
    theirs.wake()
    ours.post(np.array([1]))
    assert not theirs.must_sleep()
    assert ours.must_be_awaited(1)
    assert theirs.finish()
    assert not ours.must_be_awaited(1)


def test_more_tasks_are_written_where_the_other_side_reads_them():
    ours, theirs = two_views()
    ours.make_room(3_000)
    ours.block.columns["row"][2_999] = 5
    ours.post(np.array([1]), goes_on=True)
    assert theirs.read()
    assert theirs.block.columns["row"][2_999] == 5
    theirs.outcomes.loss_after[2_999] = 0.25
    assert ours.outcomes.loss_after[2_999] == 0.25
    assert theirs.outcomes.update_norm is None
