"""Session shapes: how far each attempt came, a character a phase (Bonawitz et al., MLSys 2019, 5).

``-`` checked in and was handed a task, ``v`` downloaded, ``[`` training begun, ``]`` training done,
``+`` upload begun; then one ending: ``^`` upload taken, ``#`` upload refused or too late,
``!`` interrupted, ``*`` an error, ``?`` never heard of again. ``-v[]+^`` is a whole task; ``-v[*``
an error in training, ``-v[]+*+^`` one of the network before the upload succeeded.

The device says how far it came, the gateway adds how it ended. The shapes are few, whatever a
device sends: an upload that is tried again adds ``*+`` once, one of an earlier process begins at
``+``, and one that a gateway asks for again is a session of its own, ``-+``.
"""

from collections import OrderedDict

CHECKED_IN = "-"
DOWNLOADED = "v"
TRAINING = "["
TRAINED = "]"
UPLOADING = "+"

TAKEN = "^"
REFUSED = "#"
INTERRUPTED = "!"
ERROR = "*"
UNHEARD = "?"

ENDINGS = (TAKEN, REFUSED, INTERRUPTED, ERROR, UNHEARD)
_TRIED_AGAIN = "+*+"
COURSES = frozenset(
    {
        "",  # a runtime that says nothing of it
        "-",
        "-v",
        "-v[",
        "-v[]",
        "-v[]+",
        "-v[]+*+",
        "-+",
        "-+*+",
        "+",
        "+*+",
    }
)
"""How far an attempt can have come."""

SHAPES = frozenset(course + ending for course in COURSES for ending in ENDINGS)
"""Every shape there can be."""

_MOST_KEPT = 64


def admitted_course(said: str) -> str:
    """What a device says of an attempt, if it can be; else the empty course.

    >>> admitted_course("-v[")
    '-v['
    >>> admitted_course("[[[")
    ''
    """
    return said if said in COURSES else ""


class SessionCourses:
    """How far the attempts of one device have come, in this process.

    Bounded: of more than a few dozen attempts at once, the oldest are forgotten.
    """

    def __init__(self) -> None:
        self._courses: OrderedDict[str, str] = OrderedDict()

    def begin(self, task_id: str) -> None:
        """The device checked in and was handed a task, or is to upload an update again."""
        self._courses[task_id] = CHECKED_IN
        while len(self._courses) > _MOST_KEPT:
            self._courses.popitem(last=False)

    def note(self, task_id: str, phase: str) -> str:
        """A phase was reached; one that was reached before adds nothing, but for an upload.

        Returns:
            How far the attempt has come.
        """
        course = self._courses.get(task_id, "")
        if phase == UPLOADING and course.endswith(UPLOADING):
            course = course.removesuffix(_TRIED_AGAIN).removesuffix(UPLOADING) + _TRIED_AGAIN
        elif phase not in course:
            course += phase
        self._courses[task_id] = course
        return course

    def end(self, task_id: str) -> str:
        """The attempt is over; returns how far it came, empty if nothing is known of it."""
        return self._courses.pop(task_id, "")
