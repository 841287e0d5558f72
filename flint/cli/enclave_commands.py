"""``flint enclave``: what an enclave is, one by itself, and what a phone would accept of one."""

from pathlib import Path
from typing import Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home

app = typer.Typer(
    help="Enclaves of secure aggregation: measure, start, verify.", no_args_is_help=True
)

ProviderOption = Annotated[
    str, typer.Option(help="Who vouches for it: software_root, aws_nitro, or an installed one.")
]
OptionsOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="Of the provider; may be repeated."),
]


@app.command("measure")
def measure(
    provider: ProviderOption = "software_root",
    option: OptionsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the measurement of the enclave that this install would run.

    The same install gives the same value on any machine; it goes into a job's
    privacy.secure_aggregation.allowed_measurements. --json shows what it consists of, to find out
    in what two machines differ.

    Example: flint enclave measure
    """
    from flint.cli.output import print_json
    from server.secure_aggregation.configuration import enclave_configuration, options_of
    from server.secure_aggregation.measurement import measure

    found = measure(enclave_configuration(provider, options_of(option or ())))
    if as_json:
        print_json({"measurement": found.value.hex(), "breakdown": dict(found.breakdown)})
    else:
        print(found.value.hex())


@app.command("up")
def up(
    home: HomeOption = None,
    gateway: Annotated[
        int, typer.Option(min=0, max=31, help="Whose enclave: the gateway's number, from 0.")
    ] = 0,
    provider: ProviderOption = "software_root",
    option: OptionsOption = None,
) -> None:
    """Run one enclave until Ctrl-C, for `flint up --aggregator external-enclave`.

    `flint up --aggregator enclave` starts enclaves by itself; use this where they are to run under
    another supervisor, or inside hardware that attests. Its keys are in its memory alone: when it
    ends, what it has summed and not let out is asked for again.

    Example: flint enclave up --home /var/lib/flint
    """
    import os
    import sys

    from server.aggregation.process import aggregator_socket
    from server.operations.settings import ServerSettings

    settings = ServerSettings.load(resolve_home(home))
    command = [
        *(sys.executable, "-P", "-m", "server.secure_aggregation"),
        *("--socket", str(aggregator_socket(settings.home, gateway))),
        *("--provider", provider, "--secrets", str(settings.secrets)),
    ]
    for pair in option or ():
        command += ["--option", pair]
    os.execv(sys.executable, command)  # noqa: S606 - the command is our own


@app.command("verify")
def verify(
    server: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="The gateway, as phones dial.")
    ],
    job_file: Annotated[
        Path, typer.Option("--job", metavar="FILE", help="Job file: what it demands is checked.")
    ],
    trust: Annotated[
        Path, typer.Option(metavar="FILE", help="What the app pins (attestation_trust.json).")
    ],
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CA certificate to trust the gateway by.")
    ] = None,
    job_id: Annotated[str, typer.Option(help="Job to ask about; else the one that runs.")] = "",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="No TLS; for experiments on one machine.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """See what a phone would see: have a deployed server's enclave prove itself, and judge it.

    Dials the gateway as a device does, with a nonce of its own, and checks what a device checks
    with the same code: document, chain, freshness, measurement, key, release policy. Exit code 0
    means a phone would seal its update to this enclave; 2 that it would not, with the reason.

    Example: flint enclave verify flint.example.com:9510 --job ads.yaml --trust trust.json
    """
    from flint.cli.output import print_json, print_table
    from flint.enclave_verification import verify_deployed

    found = verify_deployed(server, job_file, trust, None if insecure else ca, job_id)
    if as_json:
        print_json(found.as_json())
        return
    print_table(("", ""), found.rows(), empty="")
    print("a phone with this trust file would seal its update to this enclave")
