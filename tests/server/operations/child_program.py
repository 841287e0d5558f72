"""A server process for tests: ``child_program.py PORT [BEHAVIOUR [FILE]]``."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def note_and_exit(port: int, notes: Path) -> None:
    with notes.open("a") as file:
        file.write(f"{port}\n")
    sys.exit(0)


def main(port: int, behaviour: str = "", argument: str = "") -> None:
    print(f"serving on {port}", flush=True)
    if behaviour == "crash":
        print("cannot open the frobnicator", flush=True)
        sys.exit(3)
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == "grandchild":
        sleeper = subprocess.Popen(["sleep", "1000"])
        Path(argument).write_text(str(sleeper.pid))
    if behaviour == "note":
        signal.signal(signal.SIGTERM, lambda *_: note_and_exit(port, Path(argument)))
    if behaviour == "silent":
        time.sleep(1000)
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            server.accept()[0].close()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
