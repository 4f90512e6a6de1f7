"""Training models for a store: seeds, the loop, limits of a run, and where it runs (engines/)."""
