"""HumanOmni, its processor, and loading and saving both."""

from erv.policy.load import Policy, load_policy, save_policy

__all__ = ["Policy", "load_policy", "save_policy"]
