"""Lightning callbacks of all stages; erv/train.py puts them together."""
