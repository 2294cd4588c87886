"""Tuning on one clip, whatever the model: what is predicted of it is each model's own, all else is shared."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from torch import Tensor
from torch.optim import AdamW

from fatezero.config import MethodConfig, RuntimeConfig
from fatezero.diffusion.backbone import Backbone
from fatezero.diffusion.texts import TextConditioning
from fatezero.errors import UserError, out_of_memory
from fatezero.pipeline import FateZero
from fatezero.system.stopping import Stopped
from fatezero.training.stepped import (
    SampleGrids,
    SteppedModule,
    StepsShown,
    WholeCheckpoints,
    last_checkpoint,
    last_checkpoint_file,
    set_aside,
    steps_done,
)
from fatezero.training.tuning_config import TuningConfig
from fatezero.types import Frames

IMAGES_A_STEP = 4  # of class images
SAMPLE_STEPS = 20


class ClipTuning(SteppedModule):
    """Learns one clip under its prompt, perhaps beside images that it should not forget."""

    latents: Tensor
    images: Tensor | None

    def __init__(
        self,
        options: TuningConfig,
        backbone: Backbone,
        method: MethodConfig,
        frames: Frames,
        latents: Tensor,
        images: Tensor | None,
    ) -> None:
        """Take what is tuned, on what; a subclass then chooses which weights learn.

        Args:
            options: how.
            backbone: with all layers that learn.
            method: what the model is tuned under, and sample grids are made by.
            frames: uint8 F,H,W,3, shown in sample grids.
            latents: F,C,h,w of them.
            images: N,C,h,w latents of class images; None trains on the clip alone.
        """
        super().__init__(options)
        self.options = options
        self.prompt = options.prompt or ""
        self.backbone = backbone
        self.method = method
        self.frames = frames
        self.register_buffer("latents", latents, persistent=False)
        self._text = backbone.embed(self.prompt)
        self.register_buffer("images", images, persistent=False)
        self._class_text = backbone.embed(options.class_prompt or self.prompt)
        self.started = False
        self.strict_loading = False  # checkpoints hold only what is trained

    def error(self, latents: Tensor, text: TextConditioning, generator: torch.Generator, *, images: bool) -> Tensor:
        """Mean squared error of one prediction.

        Args:
            latents: F,C,h,w of the clip, or N,C,h,w of class images.
            text: their prompt.
            generator: draws noise and its level.
            images: whether they are images.
        """
        raise NotImplementedError

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """What is trained; the rest is the checkpoint's that was started from."""
        trained = {name for name, value in self.named_parameters() if value.requires_grad}
        return {name: value for name, value in super().state_dict(*args, **kwargs).items() if name in trained}

    def configure_optimizers(self) -> AdamW:
        """AdamW at a constant rate, so that a training resumed for more steps equals one of that length."""
        assert self.options.learning_rate is not None  # see TuningConfig.for_unet
        trained = [value for value in self.parameters() if value.requires_grad]
        return AdamW(trained, self.options.learning_rate, weight_decay=0.01)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not hold exactly what is trained, which Lightning would take in part.

        Raises:
            ValueError: if it does not.
        """
        (optimizer,) = checkpoint["optimizer_states"]
        if not optimizer["state"]:
            raise ValueError("the checkpoint has no state of the optimiser")
        own, kept = self.state_dict(), checkpoint["state_dict"]
        if own.keys() != kept.keys() or not all(
            value.shape == kept[name].shape and bool(kept[name].isfinite().all()) for name, value in own.items()
        ):
            raise ValueError("the checkpoint is of another training")

    def on_train_start(self) -> None:
        """Note that a checkpoint, if there was one, has been read back."""
        self.started = True

    def training_step(self, _: Tensor) -> Tensor:
        """One step on fresh noise.

        Raises:
            UserError: if the loss is not a number.
        """
        generator = self.generator()
        loss = self.error(self.latents, self._text, generator, images=False)
        self.log("clip", loss.detach())
        if self.images is not None:
            rows = torch.randint(len(self.images), (IMAGES_A_STEP,), generator=generator)
            of_class = self.error(self.images[rows], self._class_text, generator, images=True)
            self.log("class", of_class.detach())
            loss = loss + self.options.class_weight * of_class
        if not bool(loss.isfinite()):
            raise UserError(
                f"The loss is {loss.item()} at step {self.global_step}: set a lower --learning-rate than "
                f"{self.options.learning_rate:g}, or --precision 32-true. The last checkpoint is whole."
            )
        return loss

    def sample_grid(self) -> npt.NDArray[np.uint8]:
        """The clip, and what its inverted noise becomes under its own prompt and the sample prompts: a row each."""
        self.on_fit_end()
        self.eval()
        prompts = (self.prompt, *self.options.sample_prompts)
        editor = FateZero(self.backbone, RuntimeConfig(device=self.backbone.device.type), lambda _: None)  # type: ignore[arg-type]
        method = replace(self.method, steps=SAMPLE_STEPS, fusion=None, blending=None)
        shown = self.frames[np.linspace(0, len(self.frames) - 1, min(8, len(self.frames))).astype(int)]
        rows: list[Sequence[Frames]] = [shown]
        for prompt in prompts:
            scale = 1.0 if prompt == self.prompt else method.guidance_scale
            guided = replace(method, guidance_scale=scale)
            result = editor.edit(self.frames, self.prompt, prompt, method=guided, progress=False)
            rows.append(result.frames[np.linspace(0, len(self.frames) - 1, len(shown)).astype(int)])
        self.train()
        self.on_fit_start()
        return np.vstack([np.hstack(list(row)) for row in rows])


def fit(module: ClipTuning) -> None:
    """Train from the last checkpoint, if there is one, to the last step; one that is torn or foreign is set aside.

    Raises:
        UserError: if the loss is not a number, memory or disk do not suffice, or more steps were done already.
        KeyboardInterrupt: if the user stopped it.
    """
    options = module.options
    last = last_checkpoint_file(options.out)
    if last.exists():
        done = steps_done(last)
        if done is not None and done > options.steps:
            raise UserError(
                f"{options.out} was tuned for {done} steps already: set --steps to at least that, or another --out."
            )
        if done is not None and _resumed(module, last):
            return
        set_aside(last)
    _train(module, None)


def _resumed(module: ClipTuning, last: Path) -> bool:
    """Train from a checkpoint; False, and the module is as before, where it is of another training."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    try:
        _train(module, last)
    except UserError:
        raise
    except Exception:  # what a foreign file leads to while it is read back
        if module.started:
            raise
        module.on_fit_end()
        module.load_state_dict(before, strict=False)  # only what is trained
        return False
    return True


def _train(module: ClipTuning, checkpoint: Path | None) -> None:
    options = module.options
    try:
        _trainer(options, module.backbone.device.type).fit(module, ckpt_path=checkpoint, weights_only=True)
    except Stopped:
        raise
    except SystemExit as stopped:  # Lightning's way to say that it was interrupted
        raise KeyboardInterrupt from stopped
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise UserError(_too_large(options, module.frames)) from error


def _trainer(options: TuningConfig, accelerator: str) -> L.Trainer:
    loggers: list[Logger] = [CSVLogger(options.out, name="log", flush_logs_every_n_steps=10)]
    if options.wandb:
        mode = os.environ.get("WANDB_MODE", "offline")
        loggers.append(WandbLogger(project="fatezero-tune", name=options.out.name, save_dir=options.out, mode=mode))
    return L.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=options.precision,
        max_steps=options.steps,
        max_epochs=-1,
        logger=loggers,
        plugins=[WholeCheckpoints()],
        log_every_n_steps=1,
        gradient_clip_val=1.0,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[
            last_checkpoint(options.out, every_n_train_steps=options.checkpoint_every),
            last_checkpoint(options.out, every_n_epochs=1, save_on_train_epoch_end=True),
            SampleGrids(),
            StepsShown(),
        ],
    )


def _too_large(options: TuningConfig, frames: Frames) -> str:
    count, height, width = frames.shape[:3]
    remedies = []
    if not options.gradient_checkpointing:
        remedies.append("--gradient-checkpointing")
    if options.precision == "32-true":
        remedies.append("--precision 16-mixed on a GPU")
    remedies.append(f"--frames {max(2, count // 2)}, or a smaller --height and --width")
    return f"{count} frames of {height} x {width} do not fit the memory for training: use {'; '.join(remedies)}."
