"""Which devices that check in take a task: pure decisions, shared by gateways and dry-runs."""

import hashlib

from server.job import Selection

_WORD = 2**64 - 1


def lease_probability(selection: Selection, *, open_slots: int, eligible_devices: int) -> float:
    """Chance that an eligible device that checks in now takes a task.

    ``arrival`` gives every slot to whoever comes first, which favours devices that check in often.
    ``uniform`` gives each device seen lately the same chance, ``open_slots / eligible_devices``, at
    the price of slots that stay open a little longer.

    Args:
        open_slots: Tasks that may be leased now.
        eligible_devices: Distinct devices, this one among them, that checked in within the last
            pace interval and satisfied the job's policy.

    >>> lease_probability(Selection(name="uniform"), open_slots=5, eligible_devices=20)
    0.25
    """
    if open_slots <= 0:
        return 0.0
    if selection.name == "arrival":
        return 1.0
    return even_chance(open_slots, eligible_devices)


def even_chance(open_slots: int, eligible_devices: int) -> float:
    """Chance of each eligible device if all are to have the same; see `lease_probability`."""
    return min(1.0, open_slots / max(1, eligible_devices))


def draw(seed: int, device_id: str, check_in: int, *, purpose: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments.

    From Philox, a counter-based generator (Salmon et al., SC 2011), keyed by the job's seed and the
    device, counted by the device's check-ins: the same device at the same check-in draws the same
    number in production and in a dry-run, in whatever order devices come.

    Args:
        seed: The job's.
        device_id: Hashed; may be anything.
        check_in: Ordinal of this device's check-in.
        purpose: What is drawn for, e.g. ``"selection"``; other purposes draw other numbers.
    """
    digest = hashlib.sha256(f"{purpose}\0{device_id}".encode()).digest()
    bits = _philox(check_in + 1, seed, int.from_bytes(digest[:8], "big"))
    return (bits >> 11) * 2.0**-53


def takes_task(
    selection: Selection,
    *,
    open_slots: int,
    eligible_devices: int,
    seed: int,
    device_id: str,
    check_in: int,
) -> bool:
    """Whether this device takes a task at this check-in."""
    probability = lease_probability(
        selection, open_slots=open_slots, eligible_devices=eligible_devices
    )
    if probability in {0.0, 1.0}:
        return probability == 1.0
    return draw(seed, device_id, check_in, purpose="selection") < probability


def shuffle_seed(seed: int, task_id: str) -> int:
    """Seed of the order in which a task's records are trained on; uint64, stable for ever."""
    return int.from_bytes(
        hashlib.sha256(f"shuffle\0{seed}\0{task_id}".encode()).digest()[:8], "big"
    )


def _philox(counter: int, key_0: int, key_1: int) -> int:
    """First 64 bits of block ``counter`` of Philox4x64-10, as `numpy.random.Philox` gives them.

    Making numpy's generator asks the system for entropy each time, only to throw it away.
    """
    word_0, word_1, word_2, word_3 = counter & _WORD, 0, 0, 0
    for _ in range(10):
        product_0, product_2 = 0xD2E7470EE14C6C93 * word_0, 0xCA5A826395121157 * word_2
        word_0, word_1 = (product_2 >> 64) ^ word_1 ^ key_0, product_2 & _WORD
        word_2, word_3 = (product_0 >> 64) ^ word_3 ^ key_1, product_0 & _WORD
        key_0, key_1 = (key_0 + 0x9E3779B97F4A7C15) & _WORD, (key_1 + 0xBB67AE8584CAA73B) & _WORD
    return word_0
