"""Metrics of answers and explanations, their intervals and tests; numpy only, but for `running` (torchmetrics)."""
