"""What a run says when the records that it trains from in its own process are cut off meanwhile.

Reading a page of a mapped file that is no longer there ends a process by SIGBUS, within compiled
code, where no exception can be raised and nothing can be taken up again. So the handler does the
two things that are sound in a signal's: it writes a sentence made beforehand, and exits. That
leaves the run as a kill would, to be resumed from its checkpoint. It is machine code, as Python's
own handlers run after the compiled code only, which here never goes on.
"""

import contextlib
import ctypes
import platform
import signal
import sys
from collections.abc import Iterator

from llvmlite import binding, ir

from simulation.executors.record_paging import mapped_spans
from simulation.executors.records import ClientRecords
from simulation.executors.whole_files import UnusableRecords

_STANDARD_ERROR = 2
_USERS_MISTAKE = 2
"""Exit code of a command that met what its user has to mend."""
_WITH_INFORMATION = 4
"""SA_SIGINFO: the handler is told the address."""
_ADDRESS_AT = 2
"""Where siginfo_t has the address, in numbers of 8 bytes."""
_INT, _LONG = ir.IntType(32), ir.IntType(64)
_NAME = "end"
_SHOW_CURSOR = "\x1b[?25h"
"""Progress bars hide it."""


class _Action(ctypes.Structure):
    """struct sigaction of Linux's C libraries, on machines of 64 bits."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_byte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


@contextlib.contextmanager
def named_when_cut_off(records: ClientRecords | None, run_id: str) -> Iterator[None]:
    """While this lasts, an end by records that are no longer in their file is said in a sentence.

    Elsewhere than on Linux, and for records in no mapped file, nothing is done. A bus error at any
    other address has the effect that it had.

    Args:
        run_id: Of the run, which the sentence tells how to resume.
    """
    path = None if records is None else records.path
    spans = [] if path is None else mapped_spans(path)
    if not spans or sys.platform != "linux" or platform.architecture()[0] != "64bit":
        yield
        return
    cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
    said = (
        f"{cursor}\nflint: the records file {path} was cut off, or its disk failed, while the run "
        f"trained from it; put it back from a copy, or add its data set again, and go on with "
        f"--resume {run_id} [{UnusableRecords.code}]\n"
    ).encode()
    text = ctypes.create_string_buffer(said, len(said))
    before = _Action()
    libc = ctypes.CDLL(None, use_errno=True)
    handler = _handler(libc, spans, ctypes.addressof(text), len(said), ctypes.addressof(before))
    address = handler.get_function_address(_NAME)
    ours = _Action(handler=address, flags=_WITH_INFORMATION)
    libc.sigaction(signal.SIGBUS, ctypes.byref(ours), ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaction(signal.SIGBUS, ctypes.byref(before), None)


def _handler(
    libc: ctypes.CDLL, spans: list[tuple[int, int]], text: int, size: int, before: int
) -> binding.ExecutionEngine:
    """Compile a handler, which holds all it needs as constants: in milliseconds, unlike Numba.

    Args:
        spans: First addresses of the mappings, and those after their last.
        text: Address of what to write, of ``size`` bytes.
        before: Address of the action to go back to at a bus error elsewhere.
    """
    module = ir.Module()
    kind = ir.FunctionType(ir.VoidType(), [_INT, _LONG, _LONG])
    function = ir.Function(module, kind, _NAME)
    builder = ir.IRBuilder(function.append_basic_block())
    information = builder.inttoptr(function.args[1], _LONG.as_pointer())
    address = builder.load(builder.gep(information, [_LONG(_ADDRESS_AT)]))

    def call(name: str, *arguments: ir.Value) -> None:
        place = ctypes.cast(libc[name], ctypes.c_void_p).value
        takes = ir.FunctionType(_LONG, [argument.type for argument in arguments])
        builder.call(builder.inttoptr(_LONG(place), takes.as_pointer()), arguments)

    for begin, end in spans:
        is_from = builder.icmp_unsigned(">=", address, _LONG(begin))
        with builder.if_then(
            builder.and_(is_from, builder.icmp_unsigned("<", address, _LONG(end)))
        ):
            call("write", _INT(_STANDARD_ERROR), _LONG(text), _LONG(size))
            call("_exit", _INT(_USERS_MISTAKE))
    call("sigaction", _INT(int(signal.SIGBUS)), _LONG(before), _LONG(0))
    builder.ret_void()
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(opt=0)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    engine.finalize_object()
    return engine
