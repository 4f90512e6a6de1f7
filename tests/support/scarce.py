"""A recipe whose process runs short of memory: real trainings, in an address space with little left."""

from __future__ import annotations

import resource
from pathlib import Path

from memdb.recipes.mlp import MLP

RECIPE = MLP(hidden=(2048,), epochs=1)  # 6 MiB a model at least
N_EASY = 16  # models, for which there is room if few are trained at once
ROOM, NO_ROOM = 50 << 20, 1 << 20
fitted = []


def train(data, masks, seeds, run):
    import torch._dynamo  # noqa: F401 - PyTorch's optimisers load it; what is loaded needs no room

    import memdb.recipes.mlp_torch  # noqa: F401

    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    room = ROOM if sum(fitted) < N_EASY else NO_ROOM
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, before[1]))
    print("trying", len(seeds), flush=True)
    try:
        found = RECIPE(data, masks, seeds, run)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    fitted.append(len(seeds))
    return found
