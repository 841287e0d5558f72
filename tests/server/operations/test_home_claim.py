import os
import subprocess
import sys
import threading

import pytest

from server.operations.home_claim import (
    AlreadyRunning,
    UnusableHome,
    claim_home,
    no_server_runs,
    running_server,
)


def test_a_data_directory_is_claimed_by_one_server_at_a_time(tmp_path):
    with claim_home(tmp_path):
        assert running_server(tmp_path) == os.getpid()
        with (
            pytest.raises(AlreadyRunning, match=rf"process {os.getpid()}\).*\[FLN-1210\]"),
            claim_home(tmp_path),
        ):
            pass
    assert running_server(tmp_path) is None
    with claim_home(tmp_path):
        assert running_server(tmp_path) == os.getpid()


def test_a_directory_no_server_ever_used_has_none(tmp_path):
    assert running_server(tmp_path / "never") is None


def test_while_it_is_sure_that_no_server_runs_none_is_seen_and_none_starts(tmp_path):
    with claim_home(tmp_path), no_server_runs(tmp_path) as is_free:
        assert not is_free
    started = threading.Event()

    def serve() -> None:
        with claim_home(tmp_path):
            started.set()

    with no_server_runs(tmp_path) as is_free:
        assert is_free
        assert running_server(tmp_path) is None
        server = threading.Thread(target=serve)
        server.start()
        assert not started.wait(0.3)
    server.join()
    assert started.is_set()


def test_a_data_directory_that_is_a_file_is_refused_with_the_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UnusableHome, match=r"--home\) at another \[FLN-1213\]"),
        claim_home(tmp_path / "file"),
    ):
        pass


@pytest.mark.integration
def test_the_claim_of_a_killed_server_is_free_once_its_guardian_is_through(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from server.operations.home_claim import claim_home\n"
        "with claim_home(Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    with claim_home(tmp_path):  # waits for the guardian, if it is still there
        assert running_server(tmp_path) == os.getpid()
