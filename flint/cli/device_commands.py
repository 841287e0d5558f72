"""``flint device``: enrolment tokens, one device, a fleet of many."""

import typer

app = typer.Typer(help="Devices: enrol, run one, run a fleet.", no_args_is_help=True)
