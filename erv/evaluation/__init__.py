"""Evaluation: generate predictions on held-out clips, have judges read their explanations, and compute the metrics."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "APIJudge": "erv.evaluation.judges.api",
        "EvaluationSettings": "erv.evaluation.settings",
        "HumanJudge": "erv.evaluation.judges.human",
        "LocalJudge": "erv.evaluation.judges.local",
        "MetricSettings": "erv.evaluation.metrics.summary",
        "OracleJudge": "erv.evaluation.judges.oracle",
        "VerifierJudge": "erv.evaluation.judges.verifier",
    },
)
