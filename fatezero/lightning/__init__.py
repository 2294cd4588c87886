"""The method as Lightning predict steps: the only place that knows Lightning, the training modules aside."""
