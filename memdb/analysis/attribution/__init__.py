"""How good scores of pairs are: LDS and its ceiling, and the frontier of quality against cost."""
