"""The Emotional Rationale Verifier (paper, ERV): classifier, scores, gate."""

from erv.verifier.classifier import Verifier, build_verifier, load_verifier
from erv.verifier.scores import UnfitVerifier, gate, scores

__all__ = ["UnfitVerifier", "Verifier", "build_verifier", "gate", "load_verifier", "scores"]
