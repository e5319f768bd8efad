"""Predictions on held-out clips, what judges read in their explanations, and the metrics."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "APIJudge": "erv.judges.api",
        "EvaluationSettings": "erv.measure:Evaluation",
        "HumanJudge": "erv.judges.human",
        "LocalJudge": "erv.judges.local",
        "MetricSettings": "erv.metrics.summary:Settings",
        "OracleJudge": "erv.judges.oracle:Oracle",
        "VerifierJudge": "erv.judges.verifier",
    },
)
