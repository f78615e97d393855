"""A filter of system calls for bubblewrap: what no shell task needs and namespaces do not cover.

The caller's session keyring stays with every process it starts, inside a sandbox too: keys can be
neither read nor made. The other calls refused are large parts of the kernel that an attacker would
like. A refused call fails with EPERM. Programs for another kind of processor than the machine's own
(i386, x32) get EPERM for every call, as theirs have other numbers.
"""

import errno
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

PLACE = "number of the filter's descriptor"  # in a command, where bubblewrap is to find it

# linux/audit.h, and the calls' numbers: add_key, request_key, keyctl, perf_event_open, bpf,
# userfaultfd, io_uring_setup.
_MACHINES = {
    "x86_64": (0xC000003E, (248, 249, 250, 298, 321, 323, 425)),
    "aarch64": (0xC00000B7, (217, 218, 219, 241, 280, 282, 425)),
}
_X32 = 0x40000000
# linux/bpf_common.h and linux/seccomp.h.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_NUMBER, _ARCHITECTURE = 0, 4  # where they stand in struct seccomp_data


def _program(architecture: int, calls: Sequence[int]) -> bytes:
    """The filter in classic BPF: code, jump if true, jump if false, operand."""
    refuse = len(calls) + 5  # the last instruction
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 0, refuse - 2, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, refuse - 4, 0, _X32),
        *((_IF_EQUAL, refuse - 5 - place, 0, call) for place, call in enumerate(calls)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


# Empty where we do not know the machine's numbers.
FILTER = _program(*_MACHINES[platform.machine()]) if platform.machine() in _MACHINES else b""


@contextmanager
def opened_filter(command: Sequence[str]) -> Iterator[tuple[list[str], list[int]]]:
    """`command` with the number of a descriptor in its PLACE, and the descriptors to inherit."""
    if PLACE not in command:
        yield list(command), []
        return
    descriptor = os.memfd_create("filter")
    try:
        os.write(descriptor, FILTER)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield [str(descriptor) if word == PLACE else word for word in command], [descriptor]
    finally:
        os.close(descriptor)
