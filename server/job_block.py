"""What every block of the job file is."""

from pydantic import BaseModel, ConfigDict


class Block(BaseModel):
    """A block of the job file: immutable, no unknown keys, no silent coercion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
