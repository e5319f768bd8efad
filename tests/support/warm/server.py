"""A process that has imported what the commands import, and becomes each of them by a fork (see sitecustomize.py).

python server.py SOCKET; it ends with its standard input.
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
    """Fork until standard input ends; in a fork, return the command that it is to become."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    look = selectors.DefaultSelector()
    look.register(sys.stdin, selectors.EVENT_READ, "end")
    look.register(listener, selectors.EVENT_READ, "start")
    while True:
        for key, _ in look.select():
            if key.data == "end":
                sys.exit()
            elif key.data == "start":
                link, _ = listener.accept()
                order, streams = received(link)
                if (child := os.fork()) == 0:
                    signal.set_wakeup_fd(-1)
                    for each in list(look.get_map().values()):
                        if each.fileobj is not sys.stdin:
                            os.close(each.fd)
                    link.close()
                    return order, streams
                for stream in streams:
                    os.close(stream)
                link.sendall(f"{child}\n".encode())
                handle = os.pidfd_open(child)
                look.register(handle, selectors.EVENT_READ, ("ended", child, link, handle))
                look.register(link, selectors.EVENT_READ, ("left", child, link, handle))
            else:
                what, child, link, handle = key.data
                if handle not in look.get_map():
                    continue  # both at once, and the other came first
                if what == "left":
                    os.kill(child, signal.SIGKILL)
                look.unregister(handle)
                look.unregister(link)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                os.close(handle)
                if what == "ended":
                    link.sendall(f"{code}\n".encode())
                link.close()


def received(link):
    """The command, and its three streams."""
    size, streams, _, _ = socket.recv_fds(link, 4, 3)
    text = b""
    while len(text) < int.from_bytes(size, "big"):
        text += link.recv(65536)
    return json.loads(text), streams


def become(order, streams):
    """Run the command as the main program of this process."""
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
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
    gc.freeze()
    become(*serve(sys.argv[1]))
