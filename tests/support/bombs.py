"""Sizes of objects that become more than they say."""

from __future__ import annotations

MIB = 1 << 20
ZEROS = 64 * MIB  # what small bombs become


def documents_info(size):
    from memdb.format.manifest import ObjectInfo

    return ObjectInfo(size, "0" * 64)
