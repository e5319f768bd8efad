"""Run the project's commands from tests: as processes (usually forks of a warm server), with their files in a test's folder."""

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
    """The environment of a command that keeps its runs, data and cache below `root`."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    folders = {f"ERV_{name}": str(root / name.lower()) for name in ("RUNS", "DATA", "CACHE")}
    return {**os.environ, **folders, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}


@cache
def _warm_server():
    """Start the warm server (warm/server.py) once per test process, with which it ends; returns its socket."""
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
    """`environment` in which commands are forked from the warm server instead of importing everything again.

    Not for a command that the test kills: the fork ends a moment later than the process that waits for it.
    """
    return {**environment(root), "PYTHONPATH": f"{WARM}:{ROOT}", "ERV_WARM": _warm_server()}


def train(root, *overrides, check=True):
    """Run `erv.train` in the folder `root`; it must succeed if `check`."""
    return _run(root, ["erv.train", *overrides], check)


def interrupted(root, moment, *overrides, **extra):
    """Run `erv.train` with a fault at `moment` (see warm/interrupted.py) and the environment variables `extra`."""
    return _run(root, ["interrupted", moment, *overrides], False, **extra)


def _run(root, arguments, check, **extra):
    command = [sys.executable, "-m", *arguments]
    env = {**warm(root), **extra}
    result = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


def run_of(root, arm, group="demo"):
    """The folder of the only run with this name."""
    (folder,) = (root / "runs" / group / arm).iterdir()
    return folder


def children(pid):
    """The process ids of the DDP ranks that process `pid` has started."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rsplit(")", 1)[1].split()  # the name before ")" may hold spaces
            if int(fields[1]) == pid and b"hydra.job.name=train_ddp" in (process / "cmdline").read_bytes():
                pids.append(int(process.name))
        except FileNotFoundError:  # it has ended meanwhile
            continue
    return pids


def in_a_terminal(command, env):
    """Run a command on a pseudo-terminal; returns its exit code and output."""
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
def _process_state(root, arguments, extra):
    """Set working folder, environment and arguments as a command would find them; restore them and the logging afterwards."""
    env, folder, argv = dict(os.environ), Path.cwd(), sys.argv
    handlers, level = logging.root.handlers[:], logging.root.level
    os.environ.update({**environment(root), **extra})
    os.chdir(root)
    sys.argv = arguments
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(env)
        os.chdir(folder)
        sys.argv, logging.root.handlers[:], logging.root.level = argv, handlers, level


def inside(main, root, *arguments, **extra):
    """Run a command's `main` in this process, which saves a start; returns what `subprocess.run` would."""
    out, err = io.StringIO(), io.StringIO()
    with _process_state(root, [main.__module__, *arguments], extra), redirect_stdout(out), redirect_stderr(err):
        try:
            code = main()
        except SystemExit as error:
            code = error.code
            if isinstance(code, str):
                print(code, file=err)
                code = 1
    return subprocess.CompletedProcess(arguments, code or 0, out.getvalue(), err.getvalue())
