"""Run folders: checkpoints, environment, references to other runs, provenance."""
