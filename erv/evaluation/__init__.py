"""Predictions on held-out clips, what judges read in their explanations, and the metrics."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "APIJudge": "erv.evaluation.judges.api",
        "EvaluationSettings": "erv.evaluation.settings:Evaluation",
        "HumanJudge": "erv.evaluation.judges.human",
        "LocalJudge": "erv.evaluation.judges.local",
        "MetricSettings": "erv.evaluation.metrics.summary:Settings",
        "OracleJudge": "erv.evaluation.judges.oracle:Oracle",
        "VerifierJudge": "erv.evaluation.judges.verifier",
    },
)
