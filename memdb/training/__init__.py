"""Training models for a store: seeds, the loop, when a run ends, and where it runs (engines/)."""
