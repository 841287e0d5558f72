"""What the arithmetic of this machine allows: its float32 peak on one thread, measured."""

import time

import torch

_SIDE = 2048


def float32_peak_flops(repeats: int = 8) -> float:
    """Floating-point operations a CPU second of a large product of matrices, the best of some.

    Torch's BLAS on one thread, which is as near to the peak of a core as anything here comes.
    Seconds are of the processor: those of other work on the core do not count.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    left, right = torch.rand(_SIDE, _SIDE), torch.rand(_SIDE, _SIDE)
    product = torch.empty(_SIDE, _SIDE)
    taken_s = []
    with torch.inference_mode():
        for _ in range(repeats):
            begun_s = time.process_time()
            torch.mm(left, right, out=product)
            taken_s.append(time.process_time() - begun_s)
    torch.set_num_threads(threads)
    return 2.0 * _SIDE**3 / min(taken_s)
