"""Stands where Flower expects a ServerApp; FLINT's coordinator is the one that drives the run."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Explain who drives the run, and leave it to them.

    Raises:
        RuntimeError: Always: a SuperExec took the task that FLINT's coordinator was to take.
    """
    del grid, context
    message = (
        "this run is a FLINT job and is driven by FLINT's coordinator (`flint up`); "
        "submit it with `flint submit`, not with `flwr run`, and run no SuperExec beside it"
    )
    raise RuntimeError(message)
