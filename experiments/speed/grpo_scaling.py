"""How a step of our engine grows with G, completion length and prompt length: a table, each row a process of its own.

python grpo_scaling.py [STEPS]
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SHORT, LONG = 8, 1024  # prompt lengths; what the longer one costs more is the prompt's share
GRID = ((4, 64), (8, 64), (16, 64), (32, 64), (8, 32), (8, 128))


def measure(group: int, completion: int, prompt: int, steps: int) -> float:
    """CPU seconds of a step, the median."""
    step = [
        sys.executable,
        str(Path(__file__).with_name("grpo_step.py")),
        "--engine",
        "erv",
        "--prompts",
        "1",
        "--json",
    ]
    sizes = {"group": group, "completion-len": completion, "prompt-len": prompt, "steps": steps}
    command = [*step, *(word for name, value in sizes.items() for word in (f"--{name}", str(value)))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["total_cpu_s"])


def main(steps: int) -> None:
    """Print the table."""
    print(f"| G | completion | tokens | P={SHORT}, s | ms per token | P={LONG}, s | the prompt's share, s |")
    print("|---|---|---|---|---|---|---|")
    for group, completion in GRID:
        short, long = (measure(group, completion, prompt, steps) for prompt in (SHORT, LONG))
        tokens = group * completion
        print(
            f"| {group} | {completion} | {tokens} | {short:.3f} | {short / tokens * 1e3:.2f} | {long:.3f} | {long - short:.3f} |"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
