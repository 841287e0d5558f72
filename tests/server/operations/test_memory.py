import os
import subprocess
import sys
from pathlib import Path

from server.operations import memory
from server.operations.memory import FEW_HEAPS, HEAPS_GIVE_BACK, MemoryReturn


def resident_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmRSS"))
    return int(line.split()[1])


def test_pages_between_pieces_that_stay_are_given_back():
    pieces = [bytearray(b"x" * 60_000) for _ in range(4000)]  # 240 MB, below what is mapped whole
    stay = pieces[::100]
    full_kb = resident_kb()
    del pieces
    memory.give_back_memory()
    assert full_kb - resident_kb() > 150_000
    assert len(stay) == 40


def test_it_is_not_done_again_at_once(monkeypatch):
    done = []
    monkeypatch.setattr(memory, "give_back_memory", lambda: done.append(1))
    memory_return = MemoryReturn(every_s=1000.0)
    for _ in range(5):
        memory_return.due()
    assert done == [1]


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    memory._trim.cache_clear()
    assert memory.give_back_memory() is None
    assert memory._trim()(0) is None
    memory._trim.cache_clear()


AFTER_A_FLOOD = """
import threading
from pathlib import Path

def flood():
    bytearray(30 * 2**20)  # once it is freed, glibc keeps up to 60 MB at a heap's end
    pieces = [bytearray(b"x" * 30_000) for _ in range(1500)]
    del pieces

def resident_kb():
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])

before_kb = resident_kb()
done, over = threading.Event(), threading.Event()
threading.Thread(target=lambda: (flood(), done.set(), over.wait())).start()
done.wait()
print(resident_kb() - before_kb)
over.set()
"""


def test_a_threads_heap_gives_back_its_end():
    flood = subprocess.run(
        [sys.executable, "-S", "-c", AFTER_A_FLOOD],
        env={**os.environ, **HEAPS_GIVE_BACK},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(flood.stdout) < 10_000  # of 45,000


AFTER_A_MESSAGE_ON_EACH_THREAD = """
import threading
from pathlib import Path

def resident_kb():
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])

def receive(done):
    bytearray(b"x" * 1_500_000)  # copied: 3 MB, which a heap keeps at its end
    done.set()
    over.wait()

over, before_kb = threading.Event(), resident_kb()
for _ in range(12):
    done = threading.Event()
    threading.Thread(target=receive, args=(done,)).start()
    done.wait()
print(resident_kb() - before_kb)
over.set()
"""


def test_threads_that_share_two_heaps_keep_room_for_two_messages():
    kept_kb = {}
    for name, more in (("many", {}), ("few", FEW_HEAPS)):
        threads = subprocess.run(
            [sys.executable, "-S", "-c", AFTER_A_MESSAGE_ON_EACH_THREAD],
            env={**os.environ, **HEAPS_GIVE_BACK, **more},
            capture_output=True,
            text=True,
            check=True,
        )
        kept_kb[name] = int(threads.stdout)
    print(kept_kb)
    assert kept_kb["few"] < 10_000
    assert kept_kb["many"] > 2 * kept_kb["few"]
