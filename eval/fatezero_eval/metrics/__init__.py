"""One file per metric: pure functions, and a thin torchmetrics.Metric around each."""
