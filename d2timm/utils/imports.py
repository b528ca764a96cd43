"""Import large packages in less time."""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["hidden", "import_quickly", "without_compiler"]

#: Packages that timm imports wherever they are installed, and that nothing here uses through timm
UNUSED = ("wandb",)
COMPILER = "torch._dynamo"
#: Imports triton, which takes long, to count its kernels, which timm does not have
FLOPS = "torch.utils.flop_counter"
CONFIG = f"{COMPILER}.config"
DEFERRED = (COMPILER, f"{COMPILER}.utils", CONFIG)
#: Compiled with nanobind, which at the end prints what of them the garbage collector has not freed
COUNTED = ("triton", "onnx")


def import_quickly(*modules: str) -> None:
    """Import modules, and with them torch, torchvision, timm and detectron2, in less time.

    The garbage collector is off meanwhile, because modules leave little garbage, but each of its passes
    visits all of them. timm does not find ``wandb``, with which it could log; whoever imports it later gets
    it. This is for commands, not for programs that use timm otherwise.

    Args:
        modules: their full names.
    """
    if all(module in sys.modules for module in modules):
        return
    with _collector_off(), hidden(*UNUSED):
        logging.getLogger(FLOPS).setLevel(logging.ERROR)  # it warns of what is hidden from it
        importlib.import_module("torch")
        with hidden("triton"):
            importlib.import_module(FLOPS)
        for module in modules:
            importlib.import_module(module)


@contextmanager
def _collector_off() -> Iterator[None]:
    """Turn the garbage collector off; its later passes do not visit what exists by then."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(_unfreeze)
        gc.enable()


def _unfreeze() -> None:
    """Let the last pass of the garbage collector, which takes a second, visit everything if it must."""
    if any(package in sys.modules for package in COUNTED):
        gc.unfreeze()


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Let the import of packages fail that have not been imported yet, as if they were not installed."""
    absent: dict[str, Any] = dict.fromkeys(package for package in packages if package not in sys.modules)
    sys.modules.update(absent)
    try:
        yield
    finally:
        for package in absent:
            if sys.modules.get(package, absent) is None:
                del sys.modules[package]


@contextmanager
def without_compiler() -> Iterator[None]:
    """Run code that uses torch without importing torch's compiler until something is compiled.

    torchvision, timm, optimizers and the operators of the meta device import the compiler, which takes two
    seconds, in order to exclude functions from compilation, to ask whether they are being compiled, or to
    set its options. If anything else of it is used, it is imported after all.
    """
    if COMPILER in sys.modules:
        yield
        return
    compiler, utils, config = map(_Deferred, DEFERRED)
    compiler.disable, compiler.graph_break = _disable, _graph_break  # type: ignore[attr-defined]
    compiler.is_compiling = _is_compiling  # type: ignore[attr-defined]
    compiler.utils, compiler.config = utils, config  # type: ignore[attr-defined]
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules.update({module.__name__: module for module in (compiler, utils, config)})
    try:
        yield
    finally:
        _forget_deferred()


class _Deferred(ModuleType):
    """Stands for a module until something of it is used that it does not define itself."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and not (name == "__path__" and _imports_a_submodule()):
            raise AttributeError(name)  # for which ``inspect`` asks, and ``from``
        options = vars(sys.modules[CONFIG]) if CONFIG in sys.modules else {}
        _forget_deferred()
        module = importlib.import_module(self.__name__)
        for option, value in options.items():
            if not option.startswith("__"):
                setattr(sys.modules[CONFIG], option, value)
        return getattr(module, name)


def _imports_a_submodule() -> bool:
    """Whether Python imports a module of a package, whose path it looks up in the caller."""
    return sys._getframe(2).f_globals.get("__name__") == "importlib._bootstrap"


def _forget_deferred() -> None:
    for name in DEFERRED:
        if isinstance(sys.modules.get(name), _Deferred):
            del sys.modules[name]


def _disable(function: Callable[..., Any] | None = None, *arguments: Any, **options: Any) -> Any:
    """As ``torch._dynamo.disable``: exclude a function from compilation, from its first call after that."""
    if function is None:
        return functools.partial(_disable, *arguments, **options)
    excluded: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal excluded
        compiler = sys.modules.get(COMPILER)
        if compiler is None or isinstance(compiler, _Deferred):  # nothing is being compiled
            return function(*args, **kwargs)
        excluded = excluded or compiler.disable(function, *arguments, **options)
        return excluded(*args, **kwargs)

    return call


def _graph_break() -> None:
    pass  # as long as nothing is compiled


def _is_compiling() -> bool:
    return False  # else the compiler would have been imported


def _is_compile_supported(device: str) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device))
