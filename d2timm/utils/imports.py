"""Import large packages in less time."""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["import_quickly", "without_compiler"]

#: Packages that timm imports wherever they are installed, and that nothing here uses through timm
UNUSED = ("wandb",)
COMPILER = "torch._dynamo"


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
    with _collector_off(), _hidden(UNUSED):
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
        atexit.register(gc.unfreeze)  # compiled libraries complain at the end about what is never freed
        gc.enable()


@contextmanager
def _hidden(packages: tuple[str, ...]) -> Iterator[None]:
    """Let the import of packages fail that have not been imported yet, as if they were not installed."""
    hidden: dict[str, Any] = dict.fromkeys(package for package in packages if package not in sys.modules)
    sys.modules.update(hidden)
    try:
        yield
    finally:
        for package in hidden:
            if sys.modules.get(package, hidden) is None:
                del sys.modules[package]


@contextmanager
def without_compiler() -> Iterator[None]:
    """Run code that uses torch, but does not compile, without importing torch's compiler.

    torchvision, timm and the operators of the meta device import the compiler, which takes a second, in order
    to exclude functions from compilation. If anything else of it is used, it is imported after all.
    """
    if COMPILER in sys.modules:
        yield
        return
    compiler, utils = _Deferred(COMPILER), _Deferred(f"{COMPILER}.utils")
    compiler.disable, compiler.utils = _disable, utils  # type: ignore[attr-defined]
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules.update({module.__name__: module for module in (compiler, utils)})
    try:
        yield
    finally:
        _forget_deferred()


class _Deferred(ModuleType):
    """Stands for a module until something of it is used that it does not define itself."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and (name, self.__name__) != ("__path__", COMPILER):
            raise AttributeError(name)  # of a package only the path matters; ``inspect`` asks for the others
        _forget_deferred()
        return getattr(importlib.import_module(self.__name__), name)


def _forget_deferred() -> None:
    for name in (COMPILER, f"{COMPILER}.utils"):
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


def _is_compile_supported(device: str) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device))
