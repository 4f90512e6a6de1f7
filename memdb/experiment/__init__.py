"""Experiments: models trained to answer one question, in a store of their own."""
