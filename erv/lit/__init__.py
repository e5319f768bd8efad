"""Lightning: modules, data, evaluation."""
