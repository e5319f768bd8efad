"""What this machine has, what a data set holds, and what a training step would need: before hours are spent."""
