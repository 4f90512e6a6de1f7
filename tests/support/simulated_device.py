"""A second device without a second device: tensors on ``gpu:0`` whose values lie on the CPU, or nowhere.

PyTorch lets a backend be written in Python (PrivateUse1). What a GPU refuses is refused here: operands on two
devices, a draw on the device by a generator of the CPU, `Tensor.numpy`. Kernels, waits of the host and bytes
in use are counted. What cuDNN and cuBLAS refuse, and how long anything takes, it cannot show.

Branches for ``cuda`` are not reached: tests of those replace functions of `torch.cuda`.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections import Counter

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from torch.utils.flop_counter import flop_registry

NAME = "gpu"
BLOCK = 512  # bytes: the allocator of CUDA rounds up to them
aten = torch.ops.aten

WAITS = {  # the host needs their result, or its size
    aten._local_scalar_dense.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.unique_dim.default,
}
MIXES = {aten.copy_.default, aten._to_copy.default, aten.index.Tensor, aten.index_put_.default}
DRAWS = {"rand", "randn", "randint", "randperm", "normal_", "uniform_", "bernoulli_", "random_"}
VIEWS = {"detach", "alias", "_unsafe_view", "view", "lift_fresh"}
PRODUCTS = ("conv2d", "bmm", "baddbmm", "mm", "addmm", "matmul", "linear")  # that autocast lowers
FUSED = {aten._fused_sgd_.default, aten._fused_adamw_.default}  # in place; `meta` lacks them

_there = [False]


class _Module:
    """What `torch.gpu` has to answer."""

    is_available = staticmethod(lambda: _there[0])
    is_initialized = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    current_device = staticmethod(lambda: 0)
    _is_in_bad_fork = staticmethod(lambda: False)
    manual_seed_all = staticmethod(lambda seed: None)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])
    is_autocast_enabled = staticmethod(lambda: torch.is_autocast_enabled(NAME))


class _Hooks(torch._C._acc.PrivateUse1Hooks):
    def is_available(self):
        return _there[0]

    def has_primary_context(self, index):
        return True

    def is_built(self):
        return True


class OnDevice(torch.Tensor):
    """A tensor whose values are those of ``inner``."""

    @staticmethod
    def __new__(cls, inner):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=f"{NAME}:0",
        )
        made.inner = inner
        return made

    def __repr__(self):
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} while the device is not there")

    def numpy(self, *_args, **_kwargs):
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first.")


class SimulatedDevice(TorchDispatchMode):
    """While it is entered, ``gpu:0`` can be used. With ``values=False`` nothing is computed: sizes alone."""

    def __init__(self, *, values=True):
        super().__init__()
        self.kernels, self.waits = Counter(), Counter()
        self.live = self.peak = 0
        self.traffic = 0  # bytes that kernels read and write, if no cache holds them
        self.operations = 0  # of products and convolutions: an addition or a multiplication is one
        self._home = torch.device("cpu" if values else "meta")
        self._known = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        leaves = [
            x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor | torch.Generator)
        ]
        ours = [x for x in leaves if isinstance(x, OnDevice)]
        target = kwargs.get("device")
        target = None if target is None else torch.device(target)
        if not ours and (target is None or target.type != NAME):
            return func(*args, **kwargs)
        self._refuse(func, leaves, ours)
        self._count(func, args, kwargs, leaves, ours, target)
        kwargs.pop("pin_memory", None)
        if ours and target is not None and target.type == "cpu":
            return self._download(args[0], func, args, kwargs)
        if target is not None:
            kwargs["device"] = self._home
        inner = pytree.tree_map_only(OnDevice, lambda x: x.inner, (args, kwargs))
        computed = None if func in FUSED and self._home.type == "meta" else func(*inner[0], **inner[1])
        self._weigh(func, inner, computed)
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            self.operations += count(*inner[0], **inner[1], out_val=computed)
        return self._outer(func, args, kwargs, computed, is_made=not ours)

    def _refuse(self, func, leaves, ours):
        strangers = [
            x for x in leaves if isinstance(x, torch.Tensor) and not isinstance(x, OnDevice) and x.dim()
        ]
        if ours and strangers and func not in MIXES:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{NAME}:0 and cpu! (in {func})"
            )
        generators = [x for x in leaves if isinstance(x, torch.Generator)]
        if generators and func.overloadpacket.__name__ in DRAWS and generators[0].device.type != NAME:
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")

    def _count(self, func, args, kwargs, leaves, ours, target):
        name = func.overloadpacket.__name__
        strangers = [x for x in leaves if isinstance(x, torch.Tensor) and not isinstance(x, OnDevice)]
        is_made = func is aten._to_copy.default and not ours
        is_filled = func is aten.copy_.default and strangers and isinstance(args[0], OnDevice)
        if is_made or is_filled:
            self.waits["upload"] += not (kwargs.get("non_blocking") or (is_filled and args[2:3] == (True,)))
        elif ours and target is not None and target.type == "cpu":
            self.waits["download"] += 1
        elif func in WAITS:
            self.waits[name] += 1
        elif func is aten.index.Tensor:
            indices = [x for x in args[1] if x is not None]
            by_mask = any(x.dtype in (torch.bool, torch.uint8) for x in indices)
            self.waits["index"] += bool(by_mask or strangers)
        if not (func.is_view or name in VIEWS):
            self.kernels[name] += 1

    def _weigh(self, func, taken, given):
        """Add up what a kernel reads and writes; what it changes in place counts once for each."""
        if func.is_view or func.overloadpacket.__name__ in VIEWS:
            return
        read = [x for x in pytree.tree_leaves(taken) if isinstance(x, torch.Tensor)]
        if func in {aten.index.Tensor, aten.index_select.default, aten.gather.default}:
            read = read[1:]  # of what it takes from, as much as it gives
        written = [x for x in pytree.tree_leaves(given) if isinstance(x, torch.Tensor)]
        if func in FUSED:  # which return nothing, and change all but the gradients
            written = pytree.tree_leaves([*taken[0][:1], *taken[0][2:]])
            written = [x for x in written if isinstance(x, torch.Tensor)]
        self.traffic += sum(x.numel() * x.element_size() for x in (*read, *written))

    def _download(self, x, func, args, kwargs):
        if self._home.type == "meta":
            return torch.zeros(x.shape, dtype=kwargs.get("dtype") or x.dtype)
        inner = pytree.tree_map_only(OnDevice, lambda x: x.inner, (args, kwargs))
        return func(*inner[0], **inner[1]).clone()

    def _outer(self, func, args, kwargs, out, *, is_made):
        if not pytree.tree_any(lambda x: isinstance(x, torch.Tensor), out):
            return out
        if func is aten.copy_.default:
            return args[0]
        wrapped = pytree.tree_map(self._wrap, out)
        return wrapped if is_made else return_and_correct_aliasing(func, args, kwargs, wrapped)

    def _wrap(self, x):
        if not isinstance(x, torch.Tensor) or isinstance(x, OnDevice):
            return x
        self._track(x)
        return OnDevice(x)

    def _track(self, inner):
        """Count the bytes of a tensor's storage for as long as any tensor has it."""
        storage = inner.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = size = -(-storage.nbytes() // BLOCK) * BLOCK
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, key)
        inner.held_storage = storage  # lives as long as the tensor

    def _freed(self, key):
        self.live -= self._known.pop(key, 0)


@functools.cache
def install():
    """Make the backend known to PyTorch, with autocast.

    Call it when the tests are collected: the autograd engine counts the devices at its first backward pass.
    """
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module(), hook=_Hooks())
    others, products = (
        torch.library.Library("_", "IMPL", "AutocastPrivateUse1"),
        torch.library.Library("aten", "IMPL"),
    )
    others.fallback(torch.library.fallthrough_kernel)
    for name in PRODUCTS:
        products.impl(name, functools.partial(_lowered, getattr(aten, name).default), "AutocastPrivateUse1")
    return others, products  # in force while they live


def _lowered(product, *args):
    dtype = torch.get_autocast_dtype(NAME)
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
    with torch._C._ExcludeDispatchKeyGuard(keys):
        return product(
            *(x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in args)
        )


@contextlib.contextmanager
def simulated_device(*, values=True):
    """Let ``gpu:0`` be there, and count what is done on it."""
    install()
    _there[0] = True
    try:
        with SimulatedDevice(values=values) as device:
            yield device
    finally:
        _there[0] = False
