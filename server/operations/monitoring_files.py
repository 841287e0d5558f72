"""Alert rules, dashboard and scrape configuration, as files for Prometheus and Grafana."""

from pathlib import Path

from device_runtime.errors import FlintError
from server.operations.settings import ServerSettings
from server.operations.up import ServerOptions

MONITORING = Path(__file__).with_name("monitoring")
ALERTS = MONITORING / "alerts.yaml"
DASHBOARD = MONITORING / "dashboard.json"
PROMETHEUS = MONITORING / "prometheus.yaml"


class UnwritableMonitoring(FlintError):
    """The folder for the monitoring's files cannot be written."""

    code = "FLN-1218"


def write_monitoring(folder: Path, settings: ServerSettings | None) -> tuple[Path, ...]:
    """Write the files into a folder; returns their paths.

    Args:
        folder: Made where there is none.
        settings: Of the deployment whose ports are scraped; None for the default ports.

    Raises:
        UnwritableMonitoring: If they cannot be written.
    """
    defaults = ServerOptions()
    scraped = PROMETHEUS.read_text()
    if settings is not None:
        for default, ports in (
            (defaults.gateway_metrics_port, settings.gateway_metrics_ports),
            (defaults.coordinator_metrics_port, (settings.coordinator_metrics_port,)),
        ):
            targets = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
            scraped = scraped.replace(f'"127.0.0.1:{default}"', targets)
    texts = {
        ALERTS.name: ALERTS.read_text(),
        DASHBOARD.name: DASHBOARD.read_text(),
        PROMETHEUS.name: scraped,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text)
    except OSError as error:
        raise UnwritableMonitoring(
            f"{folder} cannot be written ({error.strerror}); give a folder of yours"
        ) from error
    return tuple(folder / name for name in texts)
