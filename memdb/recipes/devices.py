"""The devices to train on."""

from __future__ import annotations

import importlib.util
import os
import sys

from memdb.environment import install
from memdb.errors import InvalidInputError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def resolve_device(name: str) -> str:
    """Return a device that is available: for ``auto`` the first GPU, or else the CPU.

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
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
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
    """Return the device of each worker: ``auto`` and ``cuda`` cycle through all GPUs.

    Raises:
        InvalidInputError: this machine or its PyTorch lacks the device.
    """
    device = resolve_device(name)
    if not device.startswith("cuda") or name not in {"auto", "cuda"}:
        return [device] * n_workers
    import torch  # noqa: PLC0415 - seconds to import, and recipes need not use it

    n_gpus = torch.cuda.device_count()
    return [f"cuda:{number % n_gpus}" for number in range(n_workers)]


def name_of(device: str) -> str:
    """Return a device as it is recorded with a model: a GPU with its product name."""
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda"):
        return device
    try:
        make = torch.cuda.get_device_name(torch.device(device))
    except (RuntimeError, AssertionError):  # not worth failing a training
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
