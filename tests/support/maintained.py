"""Garbage collection that waits for nobody."""

from __future__ import annotations

from datetime import timedelta

from memdb.store.maintenance import gc

NOW = timedelta(0)


def garbage(store, grace=NOW):
    return gc.garbage(store, grace, alone=True)


def clean(store, grace=NOW):
    return list(gc.remove(store, garbage(store, grace)))
