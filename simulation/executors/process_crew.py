"""The processes that train beside a run's own: told things, asked, awaited, replaced when dead."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from modeling.spec import ModelSpec
from simulation.executors.lost_executors import DEATHS, STALLS, lost
from simulation.executors.messages import Message, SetWeights
from simulation.executors.process_link import Ending, ProcessEnded, ProcessLink
from simulation.executors.records import ClientRecords
from simulation.executors.shared_weights import SharedWeights
from simulation.executors.task_board import TaskBoard
from simulation.executors.training import LocalPlan

Own = TypeVar("Own")
Deaths = Counter[tuple[int, bool]]
"""How often executors have ended with the same tasks: by number, and whether they were stalled."""


class ProcessCrew:
    """Executors 1, 2, ... of a run, each a process of its own.

    Args:
        executors: How many there are, executor 0 with them, which is the run's own process.
        weights: The run's.
        on_death: Told which executor has died, and with it all that it kept.
        on_replaced: Told a sentence when another has begun in its place.
        stall_timeout_s: One that finishes no task for so long is stopped and replaced.
    """

    def __init__(
        self,
        executors: int,
        model: ModelSpec,
        plan: LocalPlan,
        records: ClientRecords,
        *,
        weights: SharedWeights,
        board: TaskBoard,
        on_death: Callable[[int], None],
        on_replaced: Callable[[str], None],
        stall_timeout_s: float,
    ) -> None:
        self._executors = executors
        self._model, self._plan, self._records = model, plan, records
        self._weights, self._board = weights, board
        self._on_death, self._on_replaced = on_death, on_replaced
        self._stall_timeout_s = stall_timeout_s
        self._feeds_back = plan.codec is not None and plan.codec.error_feedback
        self._links: dict[int, ProcessLink] = {}

    def start(self) -> None:
        """Start all, without waiting.

        Raises:
            ProcessEnded: If one does not start.
        """
        for number in range(1, self._executors):
            self._links[number] = self._started(number)

    def await_start(self) -> None:
        """Wait until all are ready.

        Raises:
            ProcessEnded: If one does not start.
        """
        for link in self._links.values():
            link.await_start()

    def link(self, number: int) -> ProcessLink:
        """The process that is an executor now."""
        return self._links[number]

    def tell_all(self, message: Message) -> None:
        """Tell all of them, with what they are asked next."""
        for link in self._links.values():
            link.tell(message)

    def answers(
        self, asked: Mapping[int, Message], own: Callable[[], Own]
    ) -> tuple[Own, dict[int, Any]]:
        """Ask some of them, and do this process's share while they do theirs.

        Returns:
            What ``own`` returns, and what they answer, by executor; those that die meanwhile are
            replaced, and asked again.

        Raises:
            ExecutorLost: If replacing one is no use.
        """
        deaths: Deaths = Counter()
        for number, message in asked.items():
            self._give(number, message, deaths)
        mine = own()
        return mine, {each: self._taken(each, message, deaths) for each, message in asked.items()}

    def ring(self) -> None:
        """Have all look at the board."""
        for link in self._links.values():
            link.ring()

    def finish(self) -> dict[int, Ending]:
        """Wait until nobody takes or trains anything any more.

        Returns:
            How those ended that have, by executor.
        """
        dead: dict[int, Ending] = {}
        for number, link in self._links.items():
            try:
                link.finish()
            except ProcessEnded as ended:
                dead[number] = ended.ending
        return dead

    def replace(self, number: int, ending: Ending, deaths: Deaths) -> None:
        """Start another process in place of one that has ended, and tell it what that one knew.

        Args:
            deaths: Of the same tasks; counted up.

        Raises:
            ExecutorLost: If that is no use.
            UnusableRecords: If the file of records is cut off: the process died of that.
        """
        self._records.require_whole()
        likewise = (number, ending.stalled_s is not None)
        deaths[likewise] += 1
        most = DEATHS if ending.stalled_s is None else STALLS
        if self._feeds_back or ending.would_come_again or deaths[likewise] >= most:
            raise lost(ending, deaths[likewise], self._executors, feeds_back=self._feeds_back)
        self._on_death(number)
        self._links[number].end()
        try:
            self._links[number] = link = self._started(number)
            for version, row in self._weights.row_of.items():
                link.tell(SetWeights(version, row))
            link.await_start()
        except ProcessEnded as ended:
            self.replace(number, ended.ending, deaths)
            return
        self._on_replaced(f"{ending.sentence}; another one does its tasks again")

    def close(self) -> None:
        """End all at once; what they have not answered is lost."""
        while self._links:
            self._links.popitem()[1].end()

    def _give(self, number: int, message: Message, deaths: Deaths) -> None:
        try:
            self._links[number].ask(message)
        except ProcessEnded as ended:
            self.replace(number, ended.ending, deaths)
            self._give(number, message, deaths)

    def _taken(self, number: int, message: Message, deaths: Deaths) -> Any:  # noqa: ANN401
        """The answer to what an executor was given."""
        try:
            return self._links[number].receive()
        except ProcessEnded as ended:
            self.replace(number, ended.ending, deaths)
            self._give(number, message, deaths)
            return self._taken(number, message, deaths)

    def _started(self, number: int) -> ProcessLink:
        """A process that has been told to begin; it has not answered yet."""
        self._board.admit(number)
        link = ProcessLink(
            number,
            self._executors,
            self._model.parameter_count,
            self._weights,
            self._board,
            self._stall_timeout_s,
        )
        try:
            link.begin(self._model, self._plan, self._records)
        except BaseException:
            link.end()
            raise
        return link
