from pathlib import Path

from server.operations import memory
from server.operations.memory import MemoryReturn


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
    memory.give_back_memory()
    memory._trim.cache_clear()
