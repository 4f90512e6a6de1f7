"""Stores for others: published copies, and the answers that are derived for them."""
