"""The Emotional Rationale Verifier (paper, ERV): its sentences, classifier, losses, scores and gate."""

from erv.verifier.calibration import calibrate
from erv.verifier.card import card, table
from erv.verifier.classifier import Verifier, build_verifier, load_verifier
from erv.verifier.figure import calibration_svg
from erv.verifier.losses import Loss
from erv.verifier.scores import UnfitVerifier, gate, per_class, scores
from erv.verifier.sentences import Sentences

__all__ = ["Loss", "Sentences", "UnfitVerifier", "Verifier", "build_verifier", "calibrate", "calibration_svg", "card", "gate",
           "load_verifier", "per_class", "scores", "table"]  # fmt: skip
