"""Train a torchvision classifier on images that need not fit into memory, with checkpoints.

Order and augmentation are functions of the seed, the epoch and the example, never of a reading process, so
that a resumed run ends in the same network as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import get_model, list_models

from memdb.datasets import Dataset
from memdb.datasets.example_set import ExampleSet
from memdb.format.documents import canonical_json
from memdb.format.sketches import SKETCH
from memdb.recipes.batches import evaluated, joined
from memdb.recipes.devices import ACCELERATORS, current
from memdb.recipes.images import Crop, read
from memdb.recipes.options import n_outputs
from memdb.recipes.precision import products
from memdb.recipes.protocol import Run, SketchRequest
from memdb.recipes.sketch_torch import gradient_sketch

if TYPE_CHECKING:
    from memdb.recipes.torchvision_adapter import Architecture

CHECKPOINT_SECONDS = 300.0
SKETCHED_ROWS = 32  # at once, with what every layer saw
MEAN, SPREAD = 127.5, 63.75  # constants, so that no model depends on the pixels of held-out examples


def names() -> list[str]:
    """Return the names of torchvision's image classifiers."""
    import torchvision.models  # noqa: PLC0415 - as a value: `list_models` wants the module

    return list_models(module=torchvision.models)  # type: ignore[no-any-return]


def train(
    recipe: Architecture, data: Dataset, mask: NDArray[np.bool_], seed: int, run: Run
) -> dict[str, NDArray[Any]]:
    """Train one network on a subset and return its outcomes by path, [example] each."""
    device = torch.device(run.device)
    with current(run.device), products(run.device, recipe.precision), _chance_of(device, seed):
        training = Training.start(recipe, data, mask, seed, run)
        training.finish(data.train, run)
        return _predictions(recipe, training.network, data, run)


@contextlib.contextmanager
def _chance_of(device: torch.device, seed: int) -> Iterator[None]:
    """Seed what torchvision draws weights and dropout from, and put it back: the CPU's and this device's."""
    source = _source(device)
    before = None if source is None else source.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if source is not None:
            source.manual_seed(seed)
        try:
            yield
        finally:
            if source is not None:
                source.set_rng_state(before)


def _source(device: torch.device) -> Any:
    """Return the module whose `get_rng_state` is that of the current device; None on the CPU.

    Other devices are not asked, since to ask CUDA anything costs a context.
    """
    return getattr(torch, device.type) if device.type in ACCELERATORS else None


@dataclass
class Training:
    """A network in training, and the number of its steps done."""

    recipe: Architecture
    network: nn.Module
    optimizer: torch.optim.Optimizer
    rows: NDArray[np.int64]  # of the subset
    seed: int
    path: Path
    identity: str
    device: torch.device
    done: int = 0

    @classmethod
    def start(
        cls, recipe: Architecture, data: Dataset, mask: NDArray[np.bool_], seed: int, run: Run
    ) -> Training:
        """Start training, or resume from a checkpoint of the same model."""
        network = get_model(recipe.architecture, weights=None, num_classes=n_outputs(data), **recipe.extras())
        device = torch.device(run.device)
        network = network.to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(
            network.parameters(),
            recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
        )
        told = (
            canonical_json({"options": dict(recipe.options), "seed": str(seed)}) + np.packbits(mask).tobytes()
        )
        identity = hashlib.sha256(told).hexdigest()
        path = run.checkpoint_dir / f"{seed}.pt"
        training = cls(recipe, network, optimizer, np.flatnonzero(mask), seed, path, identity, device)
        training.resume()
        return training

    def finish(self, examples: ExampleSet, run: Run) -> None:
        """Take the remaining steps."""
        recipe, device = self.recipe, self.device
        labels = torch.from_numpy(examples.labels).long().to(device)
        precision = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")
        n_steps = recipe.epochs * self.steps_an_epoch
        saved = time.monotonic()
        self.network.train()
        for rows, images in self.batches(examples, device):
            if run.stop_requested():
                self.save()
                raise KeyboardInterrupt
            self.optimizer.param_groups[0]["lr"] = recipe.rate(self.done / n_steps)
            self.optimizer.zero_grad()
            with precision:
                logits = self.network(_standardized(images))
            loss = functional.cross_entropy(
                logits.float(), labels[rows], label_smoothing=recipe.label_smoothing
            )
            torch.autograd.backward(loss)
            self.optimizer.step()
            self.done += 1
            run.progress(self.done, n_steps)
            if time.monotonic() - saved >= CHECKPOINT_SECONDS:
                self.save()
                saved = time.monotonic()

    @property
    def steps_an_epoch(self) -> int:
        """The number of steps per epoch."""
        return math.ceil(len(self.rows) / self.recipe.batch_size)

    def batches(self, examples: ExampleSet, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows and images of the remaining steps; each epoch has a new order and even batches."""
        recipe = self.recipe
        sources = [
            (examples, Crop(recipe.image_size, recipe.crop, recipe.flip, self.seed, epoch))
            for epoch in range(recipe.epochs)
        ]
        return read(sources, self._left(), recipe.epochs * len(self.rows), device)

    def _left(self) -> Iterator[list[tuple[int, int]]]:
        """Yield epoch and row of each example of the remaining steps."""
        first, begun = divmod(self.done, self.steps_an_epoch)
        for epoch in range(first, self.recipe.epochs):
            key = np.array([self.seed, 2**63 + epoch], dtype=np.uint64)  # differs from the keys of examples
            chance = np.random.Generator(np.random.Philox(key=key))
            parts = np.array_split(chance.permutation(self.rows), self.steps_an_epoch)
            for part in parts[begun if epoch == first else 0 :]:
                yield [(epoch, row) for row in part.tolist()]

    def save(self) -> None:
        """Write the checkpoint atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        source = _source(self.device)
        state = {
            "identity": self.identity,
            "done": self.done,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "chance": torch.get_rng_state(),
            "chance_on_gpu": None if source is None else source.get_rng_state(),
        }
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)

    def resume(self) -> None:
        """Load the checkpoint, if there is a readable one of this model."""
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception:  # noqa: BLE001 - missing or damaged in any way: training starts anew
            return
        if state.get("identity") != self.identity:
            return
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["chance"])
        if state["chance_on_gpu"] is not None and (source := _source(self.device)) is not None:
            source.set_rng_state(state["chance_on_gpu"])
        self.done = state["done"]


def _standardized(images: Tensor) -> Tensor:
    return images.float().sub_(MEAN).div_(SPREAD).contiguous(memory_format=torch.channels_last)


def _predictions(
    recipe: Architecture, network: nn.Module, data: Dataset, run: Run
) -> dict[str, NDArray[Any]]:
    """Return the outcomes by path, [example] each; every image is read once."""
    device = torch.device(run.device)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")
    network.eval()
    steps = [
        (source, part)
        for source, examples in enumerate(data.sets.values())
        for part in np.array_split(np.arange(len(examples)), math.ceil(len(examples) / recipe.batch_size))
    ]
    found: list[list[dict[str, Any]]] = [[] for _ in data.sets]
    labels = [torch.from_numpy(examples.labels).long().to(device) for examples in data.sets.values()]
    sources = [(examples, Crop(recipe.image_size)) for examples in data.sets.values()]
    batches = ([(source, row) for row in part.tolist()] for source, part in steps)
    n_images = sum(map(len, data.sets.values()))
    reading = read(sources, batches, n_images, device)
    for (source, _), (rows, images) in zip(steps, reading, strict=True):
        if run.stop_requested():
            raise KeyboardInterrupt
        x, y = _standardized(images), labels[source][rows]
        with precision, torch.no_grad():
            outcomes = evaluated(network(x).float()[None], y, run.outcomes)
        found[source].append({outcome: values[0] for outcome, values in joined([outcomes]).items()})
        if run.sketch:
            found[source][-1][SKETCH] = _sketches(network, x, y, run.sketch)
    return {
        f"{name}/{outcome}": np.concatenate([part[outcome] for part in parts])
        for name, parts in zip(data.sets, found, strict=True)
        for outcome in parts[0]
    }


def _sketches(network: nn.Module, x: Tensor, y: Tensor, wanted: SketchRequest) -> NDArray[np.float16]:
    """Return a gradient sketch of every example, [example, size]."""
    found = gradient_sketch(network, x, y, size=wanted.size, seed=wanted.seed, batch_size=SKETCHED_ROWS)
    return found.astype(np.float16)
