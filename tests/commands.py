"""How tests run the project's commands: in processes of their own, with their files in a folder of their own."""

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def environment(root):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    places = {f"ERV_{name}": str(root / name.lower()) for name in ("RUNS", "DATA", "CACHE")}
    return {**os.environ, **places, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}


def train(root, *overrides, check=True):
    command = [sys.executable, "-m", "erv.train", *overrides]
    done = subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def run_of(root, arm, group="demo"):
    (folder,) = (root / "runs" / group / arm).iterdir()
    return folder


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
