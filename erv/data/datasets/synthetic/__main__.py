"""Generate the embedded corpus in a folder: `python -m erv.data.datasets.synthetic ROOT`."""

from __future__ import annotations

import argparse

from erv.data.datasets.synthetic.corpus import SyntheticCorpus


def main() -> None:
    """Parse the command line and generate the corpus."""
    parser = argparse.ArgumentParser(prog="python -m erv.data.datasets.synthetic", description=SyntheticCorpus.__doc__)
    parser.add_argument("root", help="folder to write to; a corpus that it holds already is kept")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other clips (default 0)")
    parser.add_argument("--clips", type=int, default=3000, help="all clips together (default 3000)")
    parser.add_argument("--dev", type=int, default=400, help="clips in the dev split (default 400)")
    parser.add_argument("--test", type=int, default=600, help="clips in the test split (default 600)")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one per core)")
    arguments = parser.parse_args()
    SyntheticCorpus(**vars(arguments)).prepare()
    print(f"corpus in {arguments.root}")


if __name__ == "__main__":
    main()
