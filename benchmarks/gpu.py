"""What speed, memory and number formats are on a GPU: one table after another, within some eight minutes on an H100.

`python -m benchmarks.gpu`, in the repository's folder, measures everything on CUDA; `--items times formats` measures
some of it, and `--device cpu --dtypes bfloat16 --model medium --size 64 --frames 2 --long 2 --steps 2` tries it without
a GPU. An item that fails says why, and the next one is measured. It needs torch, diffusers and transformers, but no
video library.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fatezero.benchmarking.random_checkpoint import WIDTHS, random_autoencoder
from fatezero.benchmarking.random_wan import WAN_SHAPES
from fatezero.benchmarking.turns import RunCosts, cost_table, measure_in_turn
from fatezero.benchmarking.workload import EditWorkload, load_backbone, plain_method, random_latents
from fatezero.config import BlendingConfig, MethodConfig, RuntimeConfig
from fatezero.diffusion.backbone import Backbone
from fatezero.diffusion.devices import choose_device
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.errors import UserError, first_line
from fatezero.pipeline import FateZero
from fatezero.results import EditResult
from fatezero.shipped import SPRITES
from fatezero.system.terminal import complain, say, shortened
from fatezero.types import Frames

GB = 1e9
KERNELS = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
TRIED_STEPS = 5  # where fewer tell as much
TRANSFORMER_STEPS, EXTRAPOLATED = 4, 50
SHIPPED_SIZE, SHIPPED_STEPS = 128, 20
# As the shipped checkpoint recommends; reading its recommendations takes the command line's parser.
SHIPPED_METHOD = MethodConfig(guidance_scale=3.0, blending=BlendingConfig(mask_downsampling=2))
CLIPS = ((480, 832, 41), (480, 832, 81))  # rows, columns, frames
BATCHES = (1, 2, 8)  # frames that the autoencoder is given at once


@dataclass(frozen=True)
class GpuRun:
    """What is measured, and how large.

    Attributes:
        runtime: device, and budget for the source's attention.
        dtypes: number formats; where one is enough, the first.
        model: random network or checkpoint that times are taken on.
        size: side of the frames.
        frames: of the clip.
        long: frames of the long clip.
        steps: of inversion and edit.
        repeats: turns of what is timed.
        transformer: random video transformer, or checkpoint of one.
        clips: rows, columns and frames of its clips.
    """

    runtime: RuntimeConfig
    dtypes: tuple[str, ...]
    model: str
    size: int
    frames: int
    long: int
    steps: int
    repeats: int
    transformer: str
    clips: tuple[tuple[int, int, int], ...]

    def workload(self, dtype: str | None = None, frames: int | None = None, **method: object) -> EditWorkload:
        """Inversion and edit of the clip in a number format."""
        backbone = networks(self.model, dtype or self.dtypes[0], self.runtime)
        chosen = replace(MethodConfig(steps=self.steps), **method)  # type: ignore[arg-type]
        return EditWorkload(backbone, chosen, random_latents(backbone, frames or self.frames, self.size, self.size))


@cache
def networks(model: str, dtype: str, runtime: RuntimeConfig) -> Backbone:
    """The networks in a number format; random ones are drawn on the device, which is faster."""
    with torch.device(choose_device(runtime.device) if model in WIDTHS | WAN_SHAPES else "cpu"):
        return load_backbone(model, replace(runtime, dtype=dtype))  # type: ignore[arg-type]


def times(run: GpuRun) -> None:
    """Seconds and peak of stock, bare and every backend."""
    for dtype in run.dtypes:
        print_times(run, run.workload(dtype))


def long(run: GpuRun) -> None:
    """The same for a long clip."""
    print_times(run, run.workload(frames=run.long))


def print_times(run: GpuRun, work: EditWorkload) -> None:
    """A table of stock, bare, `qk` on device and host, and `recompute`, each over stock and bare."""
    backends = {
        "qk on the device": replace(run.runtime, backend="qk", store="device"),
        "qk on the host": replace(run.runtime, backend="qk", store="host"),
        "recompute": replace(run.runtime, backend="recompute"),
    }
    works: dict[str, Callable[[], object]] = {"stock": work.stock, "bare": work.bare}
    works |= {name: partial(work.edited, runtime) for name, runtime in backends.items()}
    short = replace(work, method=replace(work.method, steps=2))
    short.stock()
    short.bare()
    for runtime in backends.values():
        short.edited(runtime)
    frames, dtype = len(work.clean), work.backbone.dtype
    say(f"{frames} frames at {run.size} x {run.size}, {work.method.steps} steps, {dtype}; peak with the model")
    print_table(measured(works, run, work), ("stock", "bare"))


def transformer(run: GpuRun) -> None:
    """A video transformer of Wan 2.1 1.3B's shape at 832 x 480: seconds and peak of stock, bare and the backends."""
    dtype = "bfloat16" if "bfloat16" in run.dtypes else run.dtypes[0]
    backbone = networks(run.transformer, dtype, run.runtime)
    for rows, columns, frames in run.clips:
        work = EditWorkload(
            backbone, plain_method(backbone, TRANSFORMER_STEPS), random_latents(backbone, frames, rows, columns)
        )
        say(f"{frames} frames at {columns} x {rows}, {TRANSFORMER_STEPS} steps, {dtype}; peak with the model")
        costs = measured(fitting(work, run.runtime), run, work)
        print_table(costs, ("stock", "bare"))
        for name, runs in costs.items():
            seconds = min(cost.seconds for cost in runs) * EXTRAPOLATED / TRANSFORMER_STEPS
            say(f"  {name}: {seconds:.0f} s for {EXTRAPOLATED} steps, if each takes as long as these")


def fitting(work: EditWorkload, runtime: RuntimeConfig) -> dict[str, Callable[[], object]]:
    """Stock, bare and those backends that fit the memory, each run once in two steps."""
    backends = {
        "recompute": replace(runtime, backend="recompute"),
        "qk on the device": replace(runtime, backend="qk", store="device"),
    }
    short = replace(work, method=replace(work.method, steps=2))
    short.stock()
    short.bare()
    works: dict[str, Callable[[], object]] = {"stock": work.stock, "bare": work.bare}
    for name, chosen in backends.items():
        try:
            work.choice(chosen)
            short.edited(chosen)
        except (UserError, torch.OutOfMemoryError) as error:
            say(f"  {name} is not measured: {shortened(str(error), 300)}")
            continue
        works[name] = partial(work.edited, chosen)
    return works


def compiled(run: GpuRun) -> None:
    """The UNet's blocks compiled (`--compile`) and not, in turn, and how long compiling takes."""
    recompute = replace(run.runtime, backend="recompute")
    eager = run.workload(steps=TRIED_STEPS)
    work = replace(run, runtime=replace(run.runtime, compile=True)).workload(steps=TRIED_STEPS)
    started = time.perf_counter()
    for warm in (work, eager):
        warm.stock()
        warm.bare()
        latents, _ = warm.edited(recompute)
        say(f"  first calls {'compiled' if warm is work else 'eager'} took {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
    works: dict[str, Callable[[], object]] = {
        "eager stock": eager.stock,
        "compiled stock": work.stock,
        "eager bare": eager.bare,
        "compiled bare": work.bare,
        "eager recompute": partial(eager.edited, recompute),
        "compiled recompute": partial(work.edited, recompute),
    }
    print_table(measured(works, run, work), ("eager stock", "eager bare", "eager recompute"))
    say(f"  compiled {difference(work.edited(recompute)[0], latents)}, beside eager")


def formats(run: GpuRun) -> None:
    """Edits of the shipped model in each number format on the device, against float32 on the CPU."""
    steps = min(run.steps, SHIPPED_STEPS)
    truth, _ = shipped_edit(RuntimeConfig(device="cpu", dtype="float32"), steps)
    device = run.runtime.device
    for dtype in ("float32", *run.dtypes):
        made, seconds = shipped_edit(RuntimeConfig(device=device, dtype=dtype), steps)  # type: ignore[arg-type]
        apart = (made.latents.double() - truth.latents.double()).abs().max().item()
        say(
            f"  {dtype:10s} {seconds:6.2f} s, PSNR to float32 on the CPU {psnr(made.frames, truth.frames):6.2f} dB, "
            f"latents apart by at most {apart:.2g}"
        )


def repeated(run: GpuRun) -> None:
    """Whether the same request gives the same bytes: twice, in other chunks, by another backend."""
    recompute, qk = (replace(run.runtime, backend=backend) for backend in ("recompute", "qk"))
    for dtype in run.dtypes:
        work = run.workload(dtype, steps=TRIED_STEPS, norm_scope="frame")
        first, _ = work.edited(recompute)
        again, _ = work.edited(recompute)
        say(f"  {dtype}: twice {difference(again, first)}")
        for chunk in sorted({max(1, run.frames // 4), max(1, run.frames // 2)}):
            cut, _ = work.edited(replace(recompute, chunk=chunk))
            say(f"  {dtype}: in chunks of {chunk} {difference(cut, first)}")
        kept, _ = work.edited(qk)
        say(f"  {dtype}: qk beside recompute {difference(kept, first)}")


@torch.no_grad()
def autoencoder(run: GpuRun) -> None:
    """Frames one at a time and in batches through an autoencoder of the model's shape: equal bytes? faster?"""
    device = choose_device(run.runtime.device)
    for dtype in ("float32", *run.dtypes):
        with torch.device(device):
            vae = random_autoencoder(run.model if run.model in WIDTHS else "medium", getattr(torch, dtype))  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(0)
        frames = torch.rand((run.frames, 3, run.size, run.size), generator=generator).to(device, vae.dtype) * 2 - 1
        latents = vae.encode(frames).latent_dist.mode()
        for verb, x in (("encode", frames), ("decode", latents)):
            works = {f"{verb} by {n}": partial(through_autoencoder, vae, verb, x, n) for n in BATCHES}
            results = {name: work() for name, work in works.items()}
            say(f"{dtype}")
            alone = f"{verb} by 1"
            print_table(measure_in_turn(works, run.repeats, device), (alone,))
            for name in [name for name in works if name != alone]:
                say(f"  {name} beside one by one {difference(results[name], results[alone])}")


def through_autoencoder(vae: diffusers.AutoencoderKL, verb: str, x: Tensor, batch: int) -> Tensor:
    """Encoded frames or decoded latents, so many at once."""
    if verb == "encode":
        return torch.cat([vae.encode(part).latent_dist.mode() for part in x.split(batch)])
    return torch.cat([vae.decode(part).sample for part in x.split(batch)])


def layout(run: GpuRun) -> None:
    """The UNet with channels last, as it is loaded, and with channels first, as diffusers has it."""
    last = run.workload(steps=TRIED_STEPS)
    networks.cache_clear()
    first = run.workload(steps=TRIED_STEPS)
    assert isinstance(first.backbone, UNetBackbone)
    first.backbone.unet.to(memory_format=torch.contiguous_format)
    works: dict[str, Callable[[], object]] = {"stock": last.stock, "stock, channels first": first.stock}
    works |= {"bare": last.bare, "bare, channels first": first.bare}
    for warm in works.values():
        warm()
    print_table(measured(works, run, last), ("stock", "bare"))


def kernels(run: GpuRun) -> None:
    """The bare network by each attention kernel of torch alone: key frames, no masks."""
    work = run.workload(steps=TRIED_STEPS)
    work.bare()
    works: dict[str, Callable[[], object]] = {"torch's own choice": work.bare}
    for kernel in KERNELS:
        try:
            by_kernel(kernel, work)
        except RuntimeError as error:
            say(f"  {kernel.name} is not there: {first_line(error)}")
            continue
        works[kernel.name] = partial(by_kernel, kernel, work)
    print_table(measured(works, run, work), ("torch's own choice",))


def by_kernel(kernel: SDPBackend, work: EditWorkload) -> None:
    """The bare network with one attention kernel."""
    with sdpa_kernel(kernel):
        work.bare()


def measured(works: dict[str, Callable[[], object]], run: GpuRun, work: EditWorkload) -> RunCosts:
    """Costs in turn, on the work's device."""
    return measure_in_turn(works, run.repeats, work.backbone.device)


def print_table(costs: RunCosts, baselines: Sequence[str]) -> None:
    """Say a table of costs."""
    for line in cost_table(costs, baselines):
        say(line)


def shipped_edit(runtime: RuntimeConfig, steps: int) -> tuple[EditResult, float]:
    """An edit by the shipped model, and its seconds without loading."""
    editor = FateZero.load("picturebook", runtime, report=lambda _: None)
    prompt, target = "a jeep on the grass", "a golden jeep on the grass"
    method = replace(SHIPPED_METHOD, steps=steps)
    started = time.perf_counter()
    made = editor.edit(jeep_clip(8), prompt, target, edited_words=("jeep",), method=method, progress=False)
    return made, time.perf_counter() - started


def jeep_clip(count: int) -> Frames:
    """A jeep that drives over grass: uint8 F,H,W,3, drawn here as reading a video would need a decoder."""
    sprite = Image.open(SPRITES / "jeep.webp").convert("RGBA").resize((56, 56))
    frames = []
    for index in range(count):
        frame = Image.new("RGB", (SHIPPED_SIZE, SHIPPED_SIZE), (150, 200, 235))
        frame.paste((95, 160, 70), (0, 70, SHIPPED_SIZE, SHIPPED_SIZE))
        frame.paste(sprite, (12 + 5 * index, 44), sprite)
        frames.append(np.asarray(frame))
    return np.stack(frames)


def psnr(a: Frames, b: Frames) -> float:
    """Peak signal-to-noise ratio of two uint8 clips, dB; infinite if they are equal."""
    error = np.square(a.astype(np.float64) - b).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def difference(a: Tensor, b: Tensor) -> str:
    """Whether two results are the same bytes, or how far apart they are."""
    if torch.equal(a, b):
        return "gives the same bytes"
    return f"differs by at most {(a - b).abs().max().item():.2g} where values reach {b.abs().max().item():.2g}"


ITEMS = (times, formats, repeated, autoencoder, layout, kernels, long, transformer, compiled)


def main(words: Sequence[str] | None = None) -> int:
    """Measure the items asked for; returns 1 if any failed."""
    run, names = parsed(words)
    device = choose_device(run.runtime.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    say(f"{name}, torch {torch.__version__}, diffusers {diffusers.__version__}, {run.model}, {run.repeats} turns")
    failed = 0
    for item in ITEMS:
        if item.__name__ in names:
            failed += not held(item, run)
    return int(failed > 0)


def held(item: Callable[[GpuRun], None], run: GpuRun) -> bool:
    """Measure an item; its failure is told, and stops no other. Returns whether it succeeded."""
    say(f"\n{item.__name__}: {item.__doc__}")
    started = time.perf_counter()
    try:
        item(run)
    except (UserError, RuntimeError, ValueError, TypeError, AttributeError, ImportError, OSError) as error:
        complain(f"{item.__name__} failed ({type(error).__name__}): {shortened(str(error), 400)}")
        return False
    finally:
        networks.cache_clear()
        torch.cuda.empty_cache()
    say(f"  ({item.__name__} took {time.perf_counter() - started:.0f} s)")
    return True


def parsed(words: Sequence[str] | None) -> tuple[GpuRun, list[str]]:
    """The run, and the names of its items."""
    names = [item.__name__ for item in ITEMS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", nargs="+", choices=names, default=names, help="what is measured; all by default")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--dtypes", nargs="+", choices=("float16", "bfloat16", "float32"), default=["float16", "bfloat16"]
    )
    parser.add_argument("--model", default="sd1", help="medium, sd1 (Stable Diffusion 1.x's shape) or a checkpoint")
    parser.add_argument("--size", type=int, default=512, help="side of the frames")
    parser.add_argument("--frames", type=int, default=8, help="of the clip")
    parser.add_argument("--long", type=int, default=32, help="frames of the long clip")
    parser.add_argument("--steps", type=int, default=50, help="of inversion and edit")
    parser.add_argument("--repeats", type=int, default=1, help="turns of what is timed")
    parser.add_argument("--transformer", default="wan-1.3b", help="wan-1.3b, wan-small (random) or a checkpoint")
    parser.add_argument(
        "--clips",
        nargs=3,
        type=int,
        action="append",
        metavar=("ROWS", "COLUMNS", "FRAMES"),
        help="of the transformer; 480 832 41 and 480 832 81 by default; may be given several times",
    )
    parser.add_argument("--memory-gb", type=float, default=60.0, help="budget for the source's attention")
    chosen = parser.parse_args(words)
    runtime = RuntimeConfig(device=chosen.device, memory_gb=chosen.memory_gb)
    run = GpuRun(
        runtime=runtime,
        dtypes=tuple(chosen.dtypes),
        model=chosen.model,
        size=chosen.size,
        frames=chosen.frames,
        long=chosen.long,
        steps=chosen.steps,
        repeats=chosen.repeats,
        transformer=chosen.transformer,
        clips=tuple(map(tuple, chosen.clips or CLIPS)),
    )
    return run, chosen.items


if __name__ == "__main__":
    sys.exit(main())
