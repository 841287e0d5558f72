"""Keeps uploads and the coordinator's orders apart: orders see no half-folded update."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class FoldBarrier:
    """Many uploads at a time, or one order.

    An upload is admitted, folded and recorded as one step; releasing, dropping or closing in the
    middle would give a sum that holds an update nobody has heard of. Orders go first: while one
    waits, no new upload starts, so it waits for the few that are running only.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._folding = 0
        self._orders = 0
        self._ordering = False

    @contextmanager
    def upload(self) -> Iterator[None]:
        """Hold off orders; other uploads may run at the same time."""
        with self._condition:
            self._condition.wait_for(lambda: self._orders == 0)
            self._folding += 1
        try:
            yield
        finally:
            with self._condition:
                self._folding -= 1
                self._condition.notify_all()

    @contextmanager
    def order(self) -> Iterator[None]:
        """Wait for running uploads, and hold off everything else."""
        with self._condition:
            self._orders += 1
            self._condition.wait_for(lambda: self._folding == 0 and not self._ordering)
            self._ordering = True
        try:
            yield
        finally:
            with self._condition:
                self._ordering = False
                self._orders -= 1
                self._condition.notify_all()
