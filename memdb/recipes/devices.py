"""The devices to train on."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from typing import Any

from memdb.environment import environment_variables, install
from memdb.errors import InvalidInputError

MANY = ("cuda", "xpu")  # kinds of which a machine may have several
ACCELERATORS = ("cuda", "xpu", "mps")  # in the order of preference; PyTorch calls those of AMD cuda, too
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def resolve_device(name: str) -> str:
    """Return a device that is available: for ``auto`` the first GPU of any make, or else the CPU.

    Raises:
        InvalidInputError: this machine or its PyTorch lacks the device.
    """
    if name == "cpu" or (name == "auto" and importlib.util.find_spec("torch") is None):
        return "cpu"
    try:
        import torch  # noqa: PLC0415 - seconds to import, and recipes need not use it
    except ImportError as error:
        raise InvalidInputError(
            f"device {name} needs PyTorch, which is not installed", hint=f"run: {install('train')}"
        ) from error
    if name == "auto":
        kind = next((kind for kind in ACCELERATORS if _is_there(kind)), "cpu")
        return f"{kind}:0" if kind in MANY else kind
    try:
        device = torch.device(name)
        with current(name):
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInputError(
            f"device {name!r} cannot be used: {reason}",
            hint='use device="auto" or "cpu"',
            parameter="device",
        ) from error
    return str(device)


def worker_devices(name: str, n_workers: int) -> list[str]:
    """Return the device of each worker: ``auto`` and a kind such as ``cuda`` cycle through all GPUs.

    Raises:
        InvalidInputError: this machine or its PyTorch lacks the device.
    """
    device = resolve_device(name)
    kind = device.partition(":")[0]
    if kind not in MANY or name not in {"auto", kind}:
        return [device] * n_workers
    n_gpus = _module(kind).device_count()
    return [f"{kind}:{number % n_gpus}" for number in range(n_workers)]


def current(device: str) -> contextlib.AbstractContextManager[Any]:
    """Make a GPU the current one of this process for a while; on other devices, do nothing at all.

    Whatever PyTorch, its libraries or a recipe do without naming a device would otherwise be done on the
    first GPU, at the cost of a context there.
    """
    kind, _, number = device.partition(":")
    if kind not in MANY or not number or "torch" not in sys.modules:
        return contextlib.nullcontext()
    return _module(kind).device(device)  # type: ignore[no-any-return]


def without_gpus(device: str) -> contextlib.AbstractContextManager[None]:
    """Hide GPUs from PyTorch, if it is loaded meanwhile, or from processes that start, for a run on the CPU.

    PyTorch's own optimizers ask whichever GPU they find, which costs a context there.
    """
    return environment_variables(dict.fromkeys(VISIBLE, "-1") if device == "cpu" else {})


def release(device: str) -> None:
    """Give back the memory that PyTorch keeps for later; on the CPU there is none."""
    kind = device.partition(":")[0]
    if kind in ACCELERATORS and "torch" in sys.modules:
        _module(kind).empty_cache()


def _is_there(kind: str) -> bool:
    return bool((_module("backends").mps if kind == "mps" else _module(kind)).is_available())


def _module(kind: str) -> Any:
    return getattr(sys.modules["torch"], kind)


def name_of(device: str) -> str:
    """Return a device as it is recorded with a model: a GPU of any kind with its product name."""
    kind = device.partition(":")[0]
    if kind not in ACCELERATORS or "torch" not in sys.modules:
        return device
    try:
        if kind == "mps":
            make = sys.modules["torch"].backends.mps.get_name()
        else:
            make = _module(kind).get_device_name(device)
    except (RuntimeError, AssertionError, AttributeError):  # not worth failing a training
        return device
    return with_make(device, make)


def with_make(device: str, make: str) -> str:
    """Return ``cuda:0 (NVIDIA H100 80GB HBM3)``, or the device alone if the driver gives no name."""
    named = " ".join(make.split())
    return f"{device} ({named})" if named else device


def use_threads(n_threads: int) -> None:
    """Limit the threads of this process, by environment variables and, if loaded, in PyTorch."""
    os.environ.update(dict.fromkeys(THREADS, str(n_threads)))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n_threads)
