"""A node that speaks Flower's real Fleet API and answers as a test tells it to."""

import threading
from collections.abc import Callable
from typing import Self

from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects
from flwr.supernode.fleet_http_connection import http_request_response

from server.operations.settings import ServerSettings

Answer = Callable[[Message], Message | None]

_POLL_S = 0.1


class ScriptedNode:
    """Online while its ``with`` block lasts; then it deactivates and unregisters itself.

    Args:
        answer: Makes the reply to a task; None keeps silent.
    """

    def __init__(self, settings: ServerSettings, answer: Answer) -> None:
        self._settings = settings
        self._answer = answer
        self._leaving = threading.Event()
        self._online = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self.node_id = 0
        self.tasks: list[Message] = []

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._online.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        self._leaving.set()
        self._thread.join()

    def _live(self) -> None:
        trust = str(self._settings.ca_certificate)
        address = self._settings.superlink_address
        with http_request_response(address, False, trust) as connection:
            self.node_id, receive, send, _, _, pull, push, confirm = connection
            self._online.set()
            while not self._leaving.wait(_POLL_S):
                received = receive()
                if received is None:
                    continue
                message, tree = received
                run_id, message_id = message.metadata.run_id, message.metadata.message_id
                ids = [node.object_id for node in iterate_object_tree(tree)]
                contents = pull_objects(ids, lambda i, run_id=run_id: pull(run_id, i))
                confirm(run_id, message_id)
                task = inflate_object_from_contents(message_id, contents)
                task.metadata.__dict__["_message_id"] = message_id
                self.tasks.append(task)
                reply = self._answer(task)
                if reply is None:
                    continue
                reply.metadata.__dict__["_message_id"] = reply.object_id
                objects = get_all_nested_objects(reply)
                wanted, session_id = send(reply, get_object_tree(reply), 0.1)
                for object_id in wanted:
                    push(run_id, session_id, object_id, objects[object_id].deflate())
