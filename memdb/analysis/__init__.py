"""Questions about whole stores: plans, convergence, reliability, classes, comparison, membership."""
