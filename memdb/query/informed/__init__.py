"""Calibrated predictions: a prior from gradient sketches, calibrated on the store's own influences."""
