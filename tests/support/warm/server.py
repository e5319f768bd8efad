"""Warm server: a process that has imported what the commands import, and forks a child for each command (see sitecustomize.py).

python server.py SOCKET; it prints "ready" when it listens, and ends when its standard input is closed.
"""

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys

_IMPORTED = [
    "lightning.pytorch",
    "lightning.pytorch.loggers",
    "tensorboard",
    "torch",
    "torchmetrics",
    "transformers",
    "peft",
    "scipy",
    "av",
    "spacy",
    "openai",
    "pyarrow.parquet",
    "hydra",
    "rich.progress",
    "erv.cli.command",
    "erv.runtime.preflight",
    "erv.runtime.session",
    "erv.evaluation.evaluator",
    "erv.runtime.evaluation",
    "erv.training.grpo",
    "erv.training.sft",
    "erv.training.verifier",
    "erv.training.tower_warmup",
    "erv.training.callbacks.completions",
    "erv.training.datamodule",
    "erv.training.callbacks.progress",
    "erv.policy.policy",
    "erv.policy.humanomni.family",
    "erv.verifier.classifier",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "sklearn.multiclass",
    "torch.profiler",
]


def serve(path):
    """Fork a child for every connection until standard input is closed; in a child, return its order and streams.

    The connection gets two lines: the child's pid, and when it has ended its exit code, negative for a signal. If the other side
    closes the connection first (its process was killed), the child is killed.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ, "end")
    selector.register(listener, selectors.EVENT_READ, "start")
    while True:
        for key, _ in selector.select():
            if key.data == "end":
                sys.exit()
            elif key.data == "start":
                link, _ = listener.accept()
                order, streams = receive(link)
                if (child := os.fork()) == 0:
                    signal.set_wakeup_fd(-1)
                    # the server's open files, or a child would keep other children's connections open
                    for entry in list(selector.get_map().values()):
                        if entry.fileobj is not sys.stdin:
                            os.close(entry.fd)
                    link.close()
                    return order, streams
                for stream in streams:
                    os.close(stream)
                link.sendall(f"{child}\n".encode())
                pidfd = os.pidfd_open(child)  # becomes readable when the child ends
                selector.register(pidfd, selectors.EVENT_READ, ("ended", child, link, pidfd))
                selector.register(link, selectors.EVENT_READ, ("disconnected", child, link, pidfd))
            else:
                event, child, link, pidfd = key.data
                if pidfd not in selector.get_map():
                    continue  # both events at once, and the other one was handled already
                if event == "disconnected":
                    os.kill(child, signal.SIGKILL)
                selector.unregister(pidfd)
                selector.unregister(link)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                os.close(pidfd)
                if event == "ended":
                    link.sendall(f"{code}\n".encode())
                link.close()


def receive(link):
    """Receive an order (module, arguments, folder, environment) and the descriptors of stdin, stdout and stderr."""
    size, streams, _, _ = socket.recv_fds(link, 4, 3)
    content = b""
    while len(content) < int.from_bytes(size, "big"):
        content += link.recv(65536)
    return json.loads(content), streams


def become(order, streams):
    """Run the command as the main program of this process."""
    for descriptor, stream in enumerate(streams):
        os.dup2(stream, descriptor)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.path.insert(0, order["folder"])
    sys.argv = [order["module"], *order["arguments"]]
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in _IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # garbage collection in the children would touch, and so copy, the pages that they share
    become(*serve(sys.argv[1]))
