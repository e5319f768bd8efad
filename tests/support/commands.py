"""How tests run the project's commands: in processes of their own, with their files in a folder of their own."""

import atexit
import contextlib
import io
import logging
import os
import pty
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
WARM = Path(__file__).parent / "warm"


def environment(root):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    places = {f"ERV_{name}": str(root / name.lower()) for name in ("RUNS", "DATA", "CACHE")}
    return {**os.environ, **places, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}


@cache
def _warm_process():
    """The socket of this process' server, which ends with it."""
    folder = tempfile.TemporaryDirectory(prefix="erv")
    atexit.register(folder.cleanup)
    socket = f"{folder.name}/socket"
    env = {**environment(Path(folder.name)), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, str(WARM / "server.py"), socket], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    atexit.register(server.communicate)
    assert server.stdout.readline() == b"ready\n"
    return socket


def warm(root):
    """`environment`, in which commands do not import everything anew; for those that are not killed."""
    env = environment(root)
    return {**env, "PYTHONPATH": f"{WARM}:{ROOT}", "ERV_WARM": _warm_process()}


def train(root, *overrides, check=True):
    return _done(root, ["erv.train", *overrides], check)


def interrupted(root, moment, *overrides, **extra):
    """`train`, to which something happens at `moment`: see interrupted.py."""
    return _done(root, ["interrupted", moment, *overrides], False, **extra)


def _done(root, arguments, check, **extra):
    command = [sys.executable, "-m", *arguments]
    env = {**warm(root), **extra}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def run_of(root, arm, group="demo"):
    (folder,) = (root / "runs" / group / arm).iterdir()
    return folder


def children(pid):
    """The ranks that a process has started."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == pid and b"hydra.job.name=train_ddp" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
        except FileNotFoundError:  # ended meanwhile
            continue
    return found


def in_a_terminal(command, env):
    """Exit code and output of a command that believes a user is watching."""
    master, slave = pty.openpty()
    process = subprocess.Popen(command, env=env, stdout=slave, stderr=slave, stdin=subprocess.DEVNULL)
    os.close(slave)
    chunks = []
    with contextlib.suppress(OSError):  # Linux ends a terminal's stream with an error
        while chunk := os.read(master, 65536):
            chunks.append(chunk)
    os.close(master)
    return process.wait(), b"".join(chunks).decode(errors="replace").replace("\r\n", "\n")


@contextlib.contextmanager
def _as_started(root, arguments, extra):
    """Folder, environment, arguments and logging of a command; all as before afterwards."""
    before = dict(os.environ), Path.cwd(), sys.argv, logging.root.handlers[:], logging.root.level
    os.environ.update({**environment(root), **extra})
    os.chdir(root)
    sys.argv = arguments
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before[0])
        os.chdir(before[1])
        sys.argv, logging.root.handlers[:], logging.root.level = before[2:]


def inside(main, root, *arguments, **extra):
    """A command in this process, which has imported everything already: as `subprocess.run` would give it back."""
    out, err = io.StringIO(), io.StringIO()
    with _as_started(root, [main.__module__, *arguments], extra), redirect_stdout(out), redirect_stderr(err):
        try:
            code = main()
        except SystemExit as end:
            code = end.code
            if isinstance(code, str):
                print(code, file=err)
                code = 1
    return subprocess.CompletedProcess(arguments, code or 0, out.getvalue(), err.getvalue())
