"""Keeping a store: compaction, garbage collection, retraction, repair, merging, history, verification."""
