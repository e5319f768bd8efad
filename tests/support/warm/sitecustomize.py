"""Python begins here where PYTHONPATH says so: `python -m erv.<command>`, or interrupted.py, goes to the warm `server.py`.

The tests start hundreds of commands, and each would spend seconds of CPU on importing the same libraries. Whoever waits for
this process sees what it would see of the command itself: its streams, its exit code or signal; signals are passed on, and
the command is killed if this process is.
"""

import ctypes
import json
import os
import signal
import socket
import sys

_WARM = ("erv.train", "erv.evaluate", "erv.predict", "erv.label", "erv.doctor", "interrupted", "modes")


def _end_with(parent):
    """As `erv.distributed.ranks.end_with`, for a command whose parent is not the warm process; it ends with this one."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _hand_over(module, arguments):
    if grid := os.environ.pop("ERV_GRID", None):
        _end_with(int(grid))
    link = socket.socket(socket.AF_UNIX)
    link.connect(os.environ["ERV_WARM"])
    order = {"module": module, "arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    text = json.dumps(order).encode()
    socket.send_fds(link, [len(text).to_bytes(4, "big")], [0, 1, 2])
    link.sendall(text)
    answers = link.makefile()
    child = int(answers.readline())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: os.kill(child, number))
    code = int(answers.readline())
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if (
    "ERV_WARM" in os.environ
    and "ERV_LEADER" not in os.environ
    and sys.orig_argv[1:2] == ["-m"]
    and sys.orig_argv[2] in _WARM
):
    _hand_over(sys.orig_argv[2], sys.orig_argv[3:])
