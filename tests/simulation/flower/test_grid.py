"""A ServerApp on the virtual grid meets what it would meet on a SuperLink, in virtual time."""

import numpy as np
import pytest

from simulation.flower.grid import NothingCanArrive
from tests.simulation.flower.conftest import ALWAYS, outcomes, seen

NODE_UNAVAILABLE, MESSAGE_UNAVAILABLE = 5, 3
CLIENT_RAISED, CLIENT_CRASHED = 2, 8
DAY = 86_400.0

ONE_ROUND = """
replies = list(grid.send_and_receive([ask(node) for node in grid.get_node_ids()]))
see(codes=codes(replies), took_s=time.time() - begun)
"""


def test_only_nodes_inside_a_window_are_there(worlds, write_app):
    app = write_app("""
        counts = [len(grid.get_node_ids())]
        for _ in range(3):
            time.sleep(400)
            counts.append(len(grid.get_node_ids()))
        see(counts=counts, nodes=[node.status for node in grid.get_nodes()])
    """)
    worlds.run(app, [[(0, 1000)], [(0, 1000)], [(500, 1300)], [(400, 401)]])
    assert seen(app) == {"counts": [2, 3, 3, 1], "nodes": ["online"]}


def test_windows_that_repeat_are_followed_for_weeks(worlds, write_app):
    app = write_app("""
        counts = []
        for _ in range(15):
            counts.append(len(grid.get_node_ids()))
            time.sleep(12 * 3600)
        see(counts=counts)
    """)
    worlds.run(app, [[(0, 3600)], [(0, 3600)], [(40_000, 50_000)]], repeat_every_s=DAY)
    assert seen(app)["counts"] == [2, 1] * 7 + [2]


def test_a_reply_takes_download_training_and_upload(worlds, write_app):
    app = write_app("""
        big = RecordDict({"arrays": ArrayRecord([np.zeros(250_000, np.float32)])})
        (node,) = grid.get_node_ids()
        for kind in ("train", "evaluate", "query"):
            grid.send_and_receive([Message(big, node, kind)])
    """)
    trial = worlds.run(app, [[ALWAYS]], kbps=8.0)  # a thousand bytes a second
    tasks = trial.tasks.to_pylist()
    assert [row["examples"] for row in tasks] == [10, 10, 10]
    assert [row["train_s"] for row in tasks] == pytest.approx([1.0, 1 / 3, 0.0])
    for row in tasks:
        assert 1_000_000 < row["bytes_down"] < 1_002_000
        assert 100 < row["bytes_up"] < 1_000
        assert row["download_s"] == row["bytes_down"] / 1000
        assert row["upload_s"] == row["bytes_up"] / 1000
        whole_s = row["download_s"] + row["train_s"] + row["upload_s"]
        assert row["ended_s"] - row["started_s"] == pytest.approx(whole_s)
        assert row["device_s"] == pytest.approx(whole_s)


def test_training_in_epochs_takes_as_many_times_as_long(worlds, write_app):
    app = write_app("""
        (node,) = grid.get_node_ids()
        for kind in ("train", "evaluate"):
            grid.send_and_receive([ask(node, kind=kind)])
    """)
    trial = worlds.run(app, [[ALWAYS]], local_epochs=5)
    assert trial.tasks["train_s"].to_pylist() == pytest.approx([5.0, 1 / 3])


def test_a_device_that_leaves_is_answered_for_by_the_superlink(worlds, write_app):
    app = write_app(ONE_ROUND)
    trial = worlds.run(app, [[(0, 20)], [(0, 2000)]], per_example_s=10.0)
    # The first is gone at 20 s, the second answers after 100 s and up to 3 s until it asks.
    assert seen(app)["codes"] == [NODE_UNAVAILABLE, 0]
    assert 100 <= seen(app)["took_s"] <= 106
    assert sorted(outcomes(trial)) == [("interrupted", "window"), ("succeeded", "")]
    lost = next(row for row in trial.tasks.to_pylist() if row["outcome"] == "interrupted")
    assert lost["ended_s"] == 20
    assert lost["device_s"] == 20 - lost["started_s"]
    assert lost["bytes_up"] == 0


def test_a_message_to_a_node_that_has_left_is_refused_at_once(worlds, write_app):
    app = write_app("""
        (node,) = grid.get_node_ids()
        time.sleep(50)
        replies = list(grid.send_and_receive([ask(node)]))
        see(codes=codes(replies), took_s=time.time() - begun)
    """)
    trial = worlds.run(app, [[(0, 20), (100, 200)]])
    assert seen(app) == {"codes": [NODE_UNAVAILABLE], "took_s": 50.0}
    assert (trial.messages, trial.undelivered, len(trial.tasks)) == (1, 1, 0)


def test_a_message_waits_for_its_node_to_come(worlds, write_app):
    app = write_app("""
        (node,) = grid.get_node_ids()
        time.sleep(50)
        (message_id,) = grid.push_messages([ask(node)])
        time.sleep(60)
        see(codes=codes(grid.pull_messages([message_id])))
    """)
    trial = worlds.run(app, [[(0, 20), (100, 200)]])
    assert seen(app)["codes"] == [0]
    assert trial.tasks["started_s"].to_pylist() == [100.0]


def test_delivery_is_at_most_once(worlds, write_app):
    app = write_app("""
        (node,) = grid.get_node_ids()
        (message_id,) = grid.push_messages([ask(node, ttl=300)])
        time.sleep(60)
        early = codes(grid.pull_messages([message_id]))
        time.sleep(300)
        see(early=early, late=codes(grid.pull_messages([message_id])))
    """)
    trial = worlds.run(app, [[(0, 20), (30, 1000)]], per_example_s=3.0)
    assert seen(app) == {"early": [], "late": [MESSAGE_UNAVAILABLE]}
    assert outcomes(trial) == [("interrupted", "window")]


def test_the_timeout_passes_in_virtual_time_and_a_late_reply_can_still_be_pulled(worlds, write_app):
    app = write_app("""
        (node,) = grid.get_node_ids()
        message = ask(node)
        in_time = codes(grid.send_and_receive([message], timeout=30))
        took_s, sent = time.time() - begun, [message.metadata.message_id]
        time.sleep(100)
        see(in_time=in_time, took_s=took_s, late=codes(grid.pull_messages(sent)))
    """)
    trial = worlds.run(app, [[ALWAYS]], per_example_s=10.0)
    assert seen(app) == {"in_time": [], "took_s": 30.0, "late": [0]}
    assert outcomes(trial) == [("succeeded", "")]


def test_what_nobody_pulls_was_over_committed(worlds, write_app):
    app = write_app(
        """
        first, second = grid.get_node_ids()
        grid.push_messages([ask(first, examples=1), ask(second, examples=1000)])
        time.sleep(50)
    """,
        """
        examples = msg.content["config"]["examples"]
        return Message(metrics(**{"num-examples": examples}), reply_to=msg)
    """,
    )
    trial = worlds.run(app, [[ALWAYS], [ALWAYS]], per_example_s=1.0)
    assert sorted(outcomes(trial)) == [
        ("over_committed", "not_pulled"),
        ("over_committed", "run_ended"),
    ]
    running = next(row for row in trial.tasks.to_pylist() if row["reason"] == "run_ended")
    assert running["ended_s"] == 50.0
    assert running["device_s"] == 50.0 - running["started_s"]
    assert running["bytes_up"] == 0


def test_a_message_expires_and_its_node_works_in_vain(worlds, write_app):
    app = write_app("""
        (node,) = grid.get_node_ids()
        replies = list(grid.send_and_receive([ask(node, ttl=50)]))
        took_s = time.time() - begun
        time.sleep(100)
        see(codes=codes(replies), took_s=took_s)
    """)
    trial = worlds.run(app, [[ALWAYS]], per_example_s=10.0)
    assert seen(app) == {"codes": [MESSAGE_UNAVAILABLE], "took_s": 51.0}  # polls every 3 s
    assert outcomes(trial) == [("interrupted", "ttl")]
    assert trial.tasks["device_s"].to_pylist() == pytest.approx([100.0], abs=0.1)


def test_a_node_that_does_not_exist_gets_no_message(worlds, write_app):
    app = write_app("""
        ids = list(grid.push_messages([ask(4711), ask(grid.get_node_ids()[0])]))
        see(refused=ids[0], given=len(ids[1]), codes=codes(grid.pull_messages([""])))
    """)
    worlds.run(app, [[ALWAYS]])
    assert seen(app) == {"refused": "", "given": 64, "codes": [MESSAGE_UNAVAILABLE]}


def test_a_node_works_on_one_message_after_the_other(worlds, write_app):
    app = write_app("""
        (node,) = grid.get_node_ids()
        replies = list(grid.send_and_receive([ask(node, number=n) for n in range(3)]))
        see(codes=codes(replies))
    """)
    trial = worlds.run(app, [[ALWAYS]], per_example_s=1.0)
    assert seen(app)["codes"] == [0, 0, 0]
    started, ended = trial.tasks["started_s"].to_pylist(), trial.tasks["ended_s"].to_pylist()
    assert started[1:] == ended[:-1]


def test_a_task_lost_without_a_trace_is_noticed_by_its_supernode(worlds, write_app):
    app = write_app(ONE_ROUND)
    trial = worlds.run(app, [[ALWAYS]] * 4, per_example_s=1000.0, hazard_per_hour=3600.0)
    assert seen(app)["codes"] == [CLIENT_CRASHED] * 4
    assert outcomes(trial) == [("interrupted", "dropout")] * 4
    last_s = max(trial.tasks["ended_s"].to_pylist())
    assert last_s + 60 <= seen(app)["took_s"] <= last_s + 63


def test_a_client_that_raises_is_an_error_reply_and_the_strategy_goes_on(worlds, write_app):
    app = write_app(
        """
        strategy = FedAvg(fraction_evaluate=0.0)
        result = strategy.start(grid, ArrayRecord([np.zeros(3)]), num_rounds=2)
        replies = list(grid.send_and_receive([ask(node) for node in grid.get_node_ids()]))
        failed = [reply.error for reply in replies if reply.has_error()]
        see(rounds=len(result.train_metrics_clientapp), code=failed[0].code, said=failed[0].reason)
        """,
        """
        if context.node_config["partition-id"] == 1:
            raise ZeroDivisionError("one by\\nnothing")
        reply = metrics(**{"num-examples": 10, "loss": 0.5})
        reply["arrays"] = msg.content.array_records.get("arrays", ArrayRecord())
        return Message(reply, reply_to=msg)
        """,
    )
    trial = worlds.run(app, [[ALWAYS]] * 3)
    assert seen(app) == {
        "rounds": 2,
        "code": CLIENT_RAISED,
        "said": "<class 'ZeroDivisionError'>:<'one by\nnothing'>",
    }
    assert trial.client_errors == {"ZeroDivisionError: one by nothing": 3}
    assert trial.trajectory["updates"].to_pylist() == [0, 2, 2, 2]
    assert trial.trajectory["failed"].to_pylist() == [0, 1, 2, 3]


def test_a_client_without_an_answer_has_crashed(worlds, write_app):
    app = write_app(ONE_ROUND, "return None")
    trial = worlds.run(app, [[ALWAYS]])
    assert seen(app)["codes"] == [CLIENT_CRASHED]
    assert outcomes(trial) == [("failed", "client_app_crashed")]


def test_clients_share_no_content_though_their_messages_do(worlds, write_app):
    app = write_app(
        """
        content = RecordDict({"config": ConfigRecord({"list": [1]})})
        messages = [Message(content, node, "train") for node in grid.get_node_ids()]
        ids = list(grid.push_messages(messages))
        content["config"]["list"].append(3)  # after it has been sent
        time.sleep(60)
        replies = list(grid.pull_messages(ids))
        see(lengths=[reply.content["metrics"]["length"] for reply in replies])
    """,
        """
        msg.content["config"]["list"].append(2)
        length = len(msg.content["config"]["list"])
        return Message(metrics(length=length), reply_to=msg)
    """,
    )
    worlds.run(app, [[ALWAYS]] * 3)
    assert seen(app)["lengths"] == [2, 2, 2]


def test_a_clients_state_stays_with_it_but_not_from_a_task_it_lost(worlds, write_app):
    app = write_app(
        """
        (node,) = grid.get_node_ids()
        counts = []
        for wait_s in (15, 15, 985, 15):  # the window closes during the third
            (reply,) = grid.send_and_receive([ask(node)])
            failed = reply.has_error()
            counts.append(reply.error.code if failed else reply.content["metrics"]["count"])
            time.sleep(wait_s)
        see(counts=counts)
    """,
        """
        kept = context.state.metric_records.setdefault("kept", MetricRecord({"count": 0}))
        kept["count"] += 1
        return Message(metrics(**{"num-examples": 10, "count": kept["count"]}), reply_to=msg)
    """,
    )
    worlds.run(app, [[(0, 62), (500, 5000)]], per_example_s=1.0)
    assert seen(app)["counts"] == [1, 2, NODE_UNAVAILABLE, 3]


def test_an_app_that_pulls_without_sleeping_comes_to_its_reply(worlds, write_app):
    app = write_app("""
        ids = list(grid.push_messages([ask(node) for node in grid.get_node_ids()]))
        replies = []
        while len(replies) < len(ids):
            answered = {reply.metadata.reply_to_message_id for reply in replies}
            replies += grid.pull_messages(set(ids) - answered)
        see(codes=codes(replies), again=codes(grid.pull_messages(ids[:1])))
    """)
    worlds.run(app, [[ALWAYS]] * 3, per_example_s=1.0)
    assert seen(app) == {"codes": [0, 0, 0], "again": [MESSAGE_UNAVAILABLE]}


def test_a_strategy_waits_for_nodes_in_virtual_time(worlds, write_app):
    app = write_app("""
        strategy = FedAvg(min_available_nodes=3, fraction_evaluate=0.0)
        nodes = list(strategy.configure_train(1, ArrayRecord([np.zeros(1)]), ConfigRecord(), grid))
        see(nodes=len(nodes), at_s=time.time() - begun)
    """)
    worlds.run(app, [[ALWAYS], [ALWAYS], [(7200.5, 7300)]])
    # It looks every second; how many to sample it has decided before.
    assert seen(app) == {"nodes": 2, "at_s": 7201.0}


def test_an_app_that_waits_in_a_loop_of_its_own_for_weeks_is_told(worlds, write_app):
    app = write_app("""
        while len(grid.get_node_ids()) < 2:
            time.sleep(600)
    """)
    with pytest.raises(NothingCanArrive, match="has slept for 30 virtual days without"):
        worlds.run(app, [[(0, 1000)]], repeat_every_s=DAY)


@pytest.mark.parametrize("repeat_every_s", [None, DAY])
def test_waiting_for_more_nodes_than_there_ever_are_is_said(worlds, write_app, repeat_every_s):
    app = write_app("FedAvg(min_available_nodes=3).start(grid, ArrayRecord([np.zeros(1)]))")
    spans = [[(0, 1000)], [(500, 1000)], [(2000, 3000)]]
    with pytest.raises(NothingCanArrive) as caught:
        worlds.run(app, spans, repeat_every_s=repeat_every_s)
    assert "waits for 3 nodes, but of 3 at most 2 are online at once" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_app_that_sleeps_for_ever_is_told(worlds, write_app):
    app = write_app("""
        while True:
            time.sleep(60)
    """)
    with pytest.raises(NothingCanArrive, match="goes on waiting"):
        worlds.run(app, [[(0, 1000)]])


def test_sleeping_clients_are_slow_ones(worlds, write_app):
    app = write_app(
        ONE_ROUND,
        """
        begun = time.perf_counter()
        time.sleep(90)
        took_s = time.perf_counter() - begun
        return Message(metrics(**{"num-examples": 10, "took-s": took_s}), reply_to=msg)
    """,
    )
    trial = worlds.run(app, [[ALWAYS]] * 2)
    assert trial.tasks["train_s"].to_pylist() == pytest.approx([91.0, 91.0])
    assert seen(app)["took_s"] <= 99  # they sleep at the same time


def test_every_message_ends_in_exactly_one_way(worlds, write_app):
    app = write_app(
        """
        for _ in range(6):
            grid.send_and_receive([ask(node) for node in grid.get_node_ids()], timeout=40)
            time.sleep(20)
    """,
        """
        examples = 5 + context.node_config["partition-id"]
        return Message(metrics(**{"num-examples": examples}), reply_to=msg)
    """,
    )
    spans = [[(start, start + 70.0)] for start in np.linspace(0, 60, 30).tolist()]
    trial = worlds.run(app, spans, per_example_s=3.0, repeat_every_s=200.0, hazard_per_hour=40.0)
    tasks = trial.tasks
    assert trial.messages == len(tasks) + trial.undelivered
    assert tasks["outcome"].null_count == tasks["ended_s"].null_count == 0
    assert {"succeeded", "interrupted", "over_committed"} == set(tasks["outcome"].to_pylist())
    device_s = np.array(tasks["ended_s"].to_pylist()) - tasks["started_s"].to_pylist()
    assert np.allclose(tasks["device_s"].to_pylist(), device_s)
    last = trial.trajectory.to_pylist()[-1]
    assert last["tasks_started"] <= len(tasks)
    assert last["device_s"] <= sum(tasks["device_s"].to_pylist()) + 1e-9
