"""Imports of large libraries without the garbage collector, which finds nothing in what they make."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Hold the collector off while libraries are imported.

    torch, diffusers and Lightning make 600000 objects that stay, and the collector would walk these again and again:
    a third of the time that their imports take. What is there afterwards is never walked again.
    """
    known, collects = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
        if collects:
            gc.enable()
