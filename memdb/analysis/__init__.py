"""Questions about whole stores: plans, curves, reliability, classes, comparisons, attacks, benchmarks."""
