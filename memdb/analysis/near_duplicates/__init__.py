"""Near-duplicates by what examples are, teach and do, and what they hide."""
