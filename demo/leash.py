"""A program on a leash is told to stop when the process that started it dies.

`python -m demo.leash PROGRAM ARGUMENT...` becomes that program. Without it, kill -9 on the launcher or on
supervisord would leave servers behind that hold their ports for ever. The leash is a feature of Linux
(PR_SET_PDEATHSIG, kept across exec, but not handed on to children); on other systems programs run without it.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel for this signal when our parent dies; SIGTERM lets a program stop its own children first."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)


if __name__ == "__main__":
    end_with_parent()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 (no shell is what we want)
