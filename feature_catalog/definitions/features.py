"""A feature as a service serves it: a view's field, and what it goes through."""

import re
from dataclasses import dataclass

from feature_catalog.definitions.bounds import checked_column, checked_list
from feature_catalog.definitions.errors import InvalidTransform, refuse
from feature_catalog.definitions.transforms import STAGES, Transform

MAX_TRANSFORMS = 16

_REFERENCE = re.compile(r"([a-z][a-z0-9_]{0,62}):([A-Za-z_][A-Za-z0-9_]{0,62})")


@dataclass(frozen=True)
class Feature:
    """One feature of a service.

    Attributes:
        ref: ``view:field``.
        transforms: What the value goes through, in this order.
        name: What the model knows it as; without one, the field's name.

    Raises:
        DefinitionError: If an attribute is impossible.
    """

    ref: str
    transforms: tuple[Transform, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        match = _REFERENCE.fullmatch(self.ref) if isinstance(self.ref, str) else None
        if match is None:
            refuse("ref", self.ref, "view:field, such as clicks:ctr")
        steps = checked_list(self.transforms, "transforms", MAX_TRANSFORMS)
        furthest = 0
        for index, step in enumerate(steps):
            if not isinstance(step, Transform):
                refuse(f"transforms[{index}]", step, "a Transform")
            stage = STAGES.index(step.run_at)
            if stage < furthest:
                raise InvalidTransform(
                    f"= {step.run_at} comes after a transform at {STAGES[furthest]}, and values "
                    f"pass {', '.join(STAGES)} in this order; change their order or places",
                    key=f"transforms[{index}].run_at",
                )
            furthest = stage
        object.__setattr__(self, "transforms", steps)
        object.__setattr__(self, "name", checked_column(self.name or match[2]))

    @property
    def view(self) -> str:
        """Name of the view it is of."""
        return self.ref.partition(":")[0]

    @property
    def field(self) -> str:
        """Name of the view's field it is."""
        return self.ref.partition(":")[2]
