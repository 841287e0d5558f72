"""``flint console``: the catalog in a browser."""

from typing import Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("console")(console)


def console(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")
    ] = 9520,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Only 127.0.0.1 keeps other machines out.")
    ] = "127.0.0.1",
    let_others_read: Annotated[
        bool,
        typer.Option(
            "--let-others-read",
            help="With another --host: whoever reaches it may read all pages; there is no login.",
        ),
    ] = False,
    hostname: Annotated[
        list[str] | None,
        typer.Option(help="Name by which browsers ask for it, beside addresses. Repeatable."),
    ] = None,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open it in this machine's browser.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show features, models, jobs and dry-runs in a browser, until Ctrl-C. Read-only.

    What each device stores and why, contracts, lineage, jobs as they run. It works with a server
    and without one. docs/console.md says what is where.

    Example: flint console --open
    """
    from flint.console.serving import serve_console

    directory = resolve_home(home)

    def listening(url: str) -> None:
        if as_json:
            print_json({"url": url, "home": str(directory)})
        else:
            note(f"the console of {directory} is at {url} (Ctrl-C ends it)")

    serve_console(
        directory,
        host=host,
        port=port,
        hostnames=hostname or (),
        let_others_read=let_others_read,
        open_browser=open_browser,
        on_listening=listening,
    )
