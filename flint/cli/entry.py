"""The command line as a whole: its commands, and how it ends.

Command modules import nothing heavy at their top, so that ``flint --help`` answers at once.

Exit codes: 0 done, 1 an error nobody expected, 2 a mistake the user can mend, 130 interrupted.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, NoReturn

import click
import typer

from device_runtime.errors import FlintError
from flint.cli import (
    audit_command,
    availability_commands,
    availability_report_command,
    availability_tune_command,
    backup_commands,
    bandwidth_commands,
    bench_commands,
    catalog_commands,
    console_command,
    dataset_commands,
    demo_command,
    device_commands,
    enclave_commands,
    error_pages,
    job_commands,
    key_commands,
    model_check_command,
    model_commands,
    population_commands,
    report_command,
    run_commands,
    server_commands,
    simulate_command,
    simulate_flower_command,
    trace_commands,
)

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

EXIT_UNEXPECTED = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_AGAIN_AFTER_S = 0.05

app = typer.Typer(
    name="flint",
    help="Cross-device federated learning on Flower: from dry-run to deployment.",
    epilog=(
        "First steps: `flint demo` shows the whole; then `flint up`, `flint dataset add`, "
        "`flint device fleet` and `flint submit`. Data live in $FLINT_HOME."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
server_commands.register(app)
job_commands.register(app)
app.add_typer(model_commands.app, name="models")
app.add_typer(model_check_command.app, name="model")
app.add_typer(dataset_commands.app, name="dataset")
app.add_typer(availability_commands.app, name="availability")
availability_report_command.register(availability_commands.app)
availability_tune_command.register(availability_commands.app)
app.add_typer(trace_commands.app, name="trace")
app.add_typer(catalog_commands.app, name="catalog")
app.add_typer(bench_commands.app, name="bench")
app.add_typer(bandwidth_commands.app, name="bandwidth")
app.add_typer(population_commands.app, name="population")
app.add_typer(run_commands.app, name="runs")
app.add_typer(device_commands.app, name="device")
app.add_typer(enclave_commands.app, name="enclave")
simulate_command.register(app)
simulate_flower_command.register(app)
report_command.register(app)
demo_command.register(app)
audit_command.register(app)
console_command.register(app)
backup_commands.register(app)
app.add_typer(key_commands.app, name="keys")
error_pages.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"flint {metadata.version('flint-on-flower')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. Anywhere in the line.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Options before any command; ``--debug`` is taken from the line by `main`."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code; a mistake is one sentence, never a traceback."""
    # As Ctrl-C: what runs is stopped in order, rather than left to the kernel.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    sys.unraisablehook = _deliver_again
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or bool(os.environ.get("FLINT_DEBUG"))
    sys.exit(_run([argument for argument in given if argument != "--debug"], debug=debug))


def _deliver_again(lost: "UnraisableHookArgs") -> None:
    """Send a signal again whose exception was lost.

    Compiled code that cannot raise drops what a signal's handler raises in it, and the command
    would go on: cbor2 does so in each list it writes.
    """
    if isinstance(lost.exc_value, KeyboardInterrupt):
        number = signal.SIGINT
    elif isinstance(lost.exc_value, SystemExit) and lost.exc_value.code == EXIT_TERMINATED:
        number = signal.SIGTERM
    else:
        sys.__unraisablehook__(lost)
        return
    # Not at once: it would be raised in this function, and be lost as well.
    main_thread = threading.main_thread().ident
    again = threading.Timer(_AGAIN_AFTER_S, signal.pthread_kill, [main_thread, number])
    again.daemon = True
    again.start()


def _run(arguments: list[str], *, debug: bool) -> int:
    try:
        code = app(arguments, standalone_mode=False, prog_name="flint")
    except click.exceptions.NoArgsIsHelpError as error:
        return error.exit_code  # the help has been shown; there is nothing to add
    except click.Abort:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Who read our output has closed it, e.g. `flint jobs | head`; nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNEXPECTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        sentence, exit_code = _explain(error)
        print(f"flint: {sentence}", file=sys.stderr)
        return exit_code
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> tuple[str, int]:
    """What to tell the user of an error, and the exit code."""
    if isinstance(error, click.ClickException):
        return _usage_sentence(error), error.exit_code
    known = _known(error)
    if known is not None:
        return str(known), known.exit_code
    said = " ".join(str(error).split())
    return (
        f"unexpected {type(error).__name__}: {said}; run again with --debug for the traceback",
        EXIT_UNEXPECTED,
    )


def _known(error: Exception) -> FlintError | None:
    """The user's mistake an error stands for, if it does."""
    if isinstance(error, FlintError):
        return error
    if isinstance(error, ModuleNotFoundError):
        from flint.extras import missing_package

        return missing_package((error.name or "a package").split(".")[0], "this command")
    if "sqlalchemy.exc" in sys.modules:
        from sqlalchemy.exc import OperationalError

        if isinstance(error, OperationalError):
            from feature_catalog.database import DatabaseUnreachable

            return DatabaseUnreachable(
                "the database no longer answers; see with `flint status` whether the server runs"
            )
    return None


def _usage_sentence(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context is not None else "flint"
    return f"{error.format_message().rstrip('.')}; `{command} --help` shows how"
