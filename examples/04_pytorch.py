"""Your own PyTorch: an `nn.Module` and a loop over a `DataLoader`, trained on random subsets.

From the command line, in the folder of a file `mine.py` with `recipe` in it:

    memdb init --store mine.zarr --recipe mine:recipe
    memdb train --store mine.zarr --add 50
"""

from __future__ import annotations

import sys
import tempfile

import torch
from torch import nn
from torch.utils.data import DataLoader

import memdb


class Small(nn.Module):
    """Two layers on the 64 pixels of scikit-learn's digits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.layers(pictures.float() / 16)
        return logits


def train(model: nn.Module, subset: torch.utils.data.TensorDataset, device: str) -> None:
    """Train on one subset, in ten epochs."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(10):
        for pictures, labels in DataLoader(subset, batch_size=64, shuffle=True):
            loss = nn.functional.cross_entropy(model(pictures.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


recipe = memdb.torch_recipe(Small, train, version="1")

if __name__ == "__main__":
    n_models = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with (
        tempfile.TemporaryDirectory() as folder,
        memdb.init(f"{folder}/mine.zarr", dataset="digits", recipe=recipe) as db,
    ):
        db.train(add=n_models)
        print(db.info().project("n_models, out_accuracy, test_accuracy"))
        print(db.top_memorized(k=5).project("key, class_name, memorization, lo, hi"))
