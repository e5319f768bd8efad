"""Hand `python -m erv.<command>` over to the warm server. Python imports this module at its start if it is on PYTHONPATH.

The tests start hundreds of commands, and each would spend seconds of CPU on importing the same libraries. The server forks a
process that becomes the command; this one waits for it and behaves as the command would: the streams are the same, it ends with
the same exit code or signal, it forwards signals, and the command is killed if it is.
"""

import ctypes
import json
import os
import signal
import socket
import sys

_COMMANDS = ("erv.train", "erv.evaluate", "erv.predict", "erv.label", "erv.doctor", "interrupted", "modes")


def _end_with(parent):
    """Be killed when the parent process ends, as by `erv.distributed.ranks.end_with`; the command itself has another parent."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _hand_over(module, arguments):
    if grid_pid := os.environ.pop("ERV_GRID", None):
        _end_with(int(grid_pid))
    link = socket.socket(socket.AF_UNIX)
    link.connect(os.environ["ERV_WARM"])
    order = {"module": module, "arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    content = json.dumps(order).encode()
    socket.send_fds(link, [len(content).to_bytes(4, "big")], [0, 1, 2])
    link.sendall(content)
    replies = link.makefile()  # the pid of the fork, then its exit code, negative for a signal
    child = int(replies.readline())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: os.kill(child, number))
    code = int(replies.readline())
    if code < 0:  # end by the same signal
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if (
    "ERV_WARM" in os.environ
    and "ERV_LEADER" not in os.environ
    and sys.orig_argv[1:2] == ["-m"]
    and sys.orig_argv[2] in _COMMANDS
):
    _hand_over(sys.orig_argv[2], sys.orig_argv[3:])
