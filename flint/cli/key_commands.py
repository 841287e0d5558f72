"""``flint keys``: the deployment's certificates."""

from typing import Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import print_json, print_table

app = typer.Typer(help="Certificates: list them, renew them.", no_args_is_help=True)


@app.command("list")
def list_certificates(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the certificates: for which names, until when, when they are renewed.

    Example: flint keys list
    """
    from dataclasses import asdict

    from server.operations.settings import ServerSettings
    from server.operations.tls import read_certificates

    found = read_certificates(ServerSettings.load(resolve_home(home)))
    if as_json:
        print_json([asdict(facts) | {"renewed_at": facts.renewed_at} for facts in found])
        return
    print_table(
        ("certificate", "names", "valid until", "renewed at"),
        [(f.role, ", ".join(f.names), f.valid_until, f.renewed_at) for f in found],
        empty="there is no certificate: this deployment runs without TLS",
    )


@app.command("renew")
def renew(
    certificates: Annotated[
        list[str],
        typer.Argument(metavar="CERTIFICATE...", help="ca, gateway, coordinator or superlink."),
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Renew certificates now, e.g. when a key may have been seen.

    A running server takes them up within seconds. Nobody who is connected is cut off, but for
    Flower's SuperNodes, which dial again. A role gets a new key; the CA keeps its own, so that
    devices go on trusting it. docs/operations.md says how to replace its key and the token key.

    Example: flint keys renew gateway
    """
    from feature_catalog.audit_log import current_actor
    from server.operations.settings import ServerSettings
    from server.operations.tls import ROLES
    from server.operations.told_changes import renew_and_tell

    known = ("ca", *ROLES)
    for name in certificates:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is no certificate; there are {', '.join(known)}")
    settings = ServerSettings.load(resolve_home(home))
    made = renew_and_tell(settings, certificates, actor=current_actor())
    if as_json:
        print_json({"renewed": made})
    else:
        print(f"renewed: {', '.join(made)}" if made else "this deployment runs without TLS")
