"""Cases of `scripts/attack.py`, by heading."""
