"""HumanOmni, its processor, and loading and saving both."""

from erv.policy.checkpoint import CheckpointError
from erv.policy.load import Policy, export_policy, load_policy, save_policy

__all__ = ["CheckpointError", "Policy", "export_policy", "load_policy", "save_policy"]
