"""The data directory that the console shows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request

from server.operations.supervisor import read_status


@dataclass(frozen=True, slots=True)
class ServedHome:
    """A deployment's data directory."""

    path: Path

    def server(self) -> dict[str, Any]:
        """Whether a server runs there, and its processes."""
        found = read_status(self.path)
        processes = [
            {"name": each.name, "state": each.state, "restarts": each.restarts}
            for each in found.processes
        ]
        return {
            "home": str(self.path),
            "running": found.running,
            "ready": found.ready,
            "processes": processes,
        }


def _home(request: Request) -> ServedHome:
    return ServedHome(request.app.state.home)


Home = Annotated[ServedHome, Depends(_home)]
