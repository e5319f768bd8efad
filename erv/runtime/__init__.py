"""What a command does around training and evaluation: checks before it begins, components, memory, leakage."""
