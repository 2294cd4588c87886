"""Which backend keeps the source's attention, where, and how many bytes that takes: said before the work starts."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from typing import Literal

import psutil
import torch

from fatezero.attention.key_frames import Chunk
from fatezero.attention.sites import Kind, Site
from fatezero.config import GB, RuntimeConfig
from fatezero.errors import UserError
from fatezero.source_attention.backends import Backend, KeepMaps, KeepQueriesAndKeys, SourceAttention
from fatezero.source_attention.needs import Needs
from fatezero.source_attention.stores import DiskStore, MemoryStore, PinnedStore, Store


@dataclass(frozen=True)
class RecordingShapes:
    """What the size of a recording depends on.

    Attributes:
        sites: the network's attention layers.
        latent_size: rows and columns of the latent.
        chunks: the clip's chunks.
        key_frames: how many frames each frame attends to.
        key_frames_min_width: layers with fewer channels attend to their own frame only.
        text_tokens: tokens of the prompt with padding.
        itemsize: bytes of one number in the networks' dtype.
    """

    sites: tuple[Site, ...]
    latent_size: tuple[int, int]
    chunks: tuple[Chunk, ...]
    key_frames: int
    key_frames_min_width: int
    text_tokens: int
    itemsize: int


def bytes_per_step(backend: Literal["qk", "maps"], kind: Kind, names: frozenset[str], shapes: RecordingShapes) -> int:
    """Bytes that a backend keeps of one step's attention of a kind, exactly."""
    frames = sum(len(chunk.frames) for chunk in shapes.chunks)
    total = 0
    for site in shapes.sites:
        if site.kind != kind or site.name not in names:
            continue
        rows, columns = site.size(*shapes.latent_size)
        tokens, channels = rows * columns, site.heads * site.head_width
        key_frames = shapes.key_frames if site.width >= shapes.key_frames_min_width else 1
        if backend == "maps":
            keys = {"self": tokens * key_frames, "cross": shapes.text_tokens, "temporal": frames}[kind]
            total += frames * site.heads * tokens * keys
        elif kind == "cross":
            total += (frames * tokens + len(shapes.chunks) * shapes.text_tokens) * channels
        else:
            total += 2 * frames * tokens * channels
    return total * shapes.itemsize


def predicted_bytes(backend: Literal["recompute", "qk", "maps"], needs: Needs, shapes: RecordingShapes) -> int:
    """Bytes of the source's attention that a backend keeps for a clip, beyond latents and averaged cross maps."""
    if backend == "recompute":
        return 0
    kinds: tuple[Kind, ...] = ("self", "temporal", "joint")
    selfs = sum(bytes_per_step(backend, kind, needs.sites, shapes) for kind in kinds) * len(needs.self_steps)
    return selfs + bytes_per_step(backend, "cross", needs.sites, shapes) * len(needs.cross_steps)


@dataclass(frozen=True)
class BackendChoice:
    """The backend taken.

    Attributes:
        backend: its name.
        store: where it keeps its tensors.
        predicted: bytes it will keep.
        budget: bytes it may keep.
    """

    backend: Literal["recompute", "qk", "maps"]
    store: Literal["device", "host", "disk"]
    predicted: int
    budget: int

    def __str__(self) -> str:
        if self.backend == "recompute":
            return (
                "source attention: recompute, runs the source beside the edit and keeps nothing of it "
                f"(budget {self.budget / GB:.2f} GB)"
            )
        return (
            f"source attention: {self.backend} on the {self.store}, predicted {self.predicted / GB:.3f} GB "
            f"(budget {self.budget / GB:.2f} GB)"
        )

    def open(self, needs: Needs, device: torch.device) -> SourceAttention | None:
        """An empty store for the needs; None where the source is run again."""
        if self.backend == "recompute":
            return None
        backend: Backend = KeepQueriesAndKeys() if self.backend == "qk" else KeepMaps()
        return SourceAttention(backend, self._empty_store(device), needs)

    def _empty_store(self, device: torch.device) -> Store:
        if self.store == "disk":
            return DiskStore()
        if self.store == "device":
            return MemoryStore(device)
        return PinnedStore(device) if device.type == "cuda" else MemoryStore(torch.device("cpu"))


def choose_backend(
    runtime: RuntimeConfig, needs: Needs, shapes: RecordingShapes, device: torch.device, processes: int = 1
) -> BackendChoice:
    """Take the backend asked for; "auto" is queries and keys where they fit the budget, else running the source again.

    What is free at the moment decides nothing, as backends round differently: it can only refuse.

    Args:
        runtime: backend, store and budget.
        needs: what of the source's attention the edits need.
        shapes: what its size depends on.
        device: where the networks are.
        processes: how many share the memory of the host.

    Raises:
        UserError: if the backend does not fit the budget, or this process's share of what is free.
    """
    budget = int(runtime.memory_gb * GB)
    if runtime.backend == "auto":
        fits = predicted_bytes("qk", needs, shapes) <= budget
        name: Literal["recompute", "qk", "maps"] = "qk" if fits else "recompute"
    else:
        name = runtime.backend
    if name == "maps" and any(site.kind == "joint" and site.name in needs.sites for site in shapes.sites):
        raise UserError(
            "Backend 'maps' keeps maps, and in this model places and prompt share one softmax, and the prompt's part "
            "is not the source's: use backend 'qk' or 'recompute'."
        )
    predicted = predicted_bytes(name, needs, shapes)
    if predicted > budget:
        raise UserError(
            f"Backend '{name}' would keep {predicted / GB:.2f} GB, more than the budget of {budget / GB:.2f} GB: raise "
            "--memory-gb, or use backend 'recompute' or fewer frames."
        )
    share = _free_bytes(runtime.store, device) // (1 if _own_memory(runtime.store, device) else processes)
    if predicted > share:
        raise UserError(
            f"Backend '{name}' would keep {predicted / GB:.2f} GB on the {runtime.store}, more than the "
            f"{share / GB:.2f} GB that are free for each of {processes} processes: use backend 'recompute', another "
            "store, fewer processes or fewer frames."
        )
    return BackendChoice(name, runtime.store, predicted, budget)


def _own_memory(store: Literal["device", "host", "disk"], device: torch.device) -> bool:
    """Whether a process keeps its recordings where no other process does."""
    return store == "device" and device.type == "cuda"


def _free_bytes(store: Literal["device", "host", "disk"], device: torch.device) -> int:
    if store == "disk":
        return shutil.disk_usage(tempfile.gettempdir()).free
    if _own_memory(store, device):
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
