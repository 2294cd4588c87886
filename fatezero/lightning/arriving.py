"""What a process that was started for this work does first."""

from __future__ import annotations

from lightning import Callback, LightningModule, Trainer

from fatezero.lightning.quiet import silence_lightning
from fatezero.system.stopping import end_with_parent, listen, stop_on_signals
from fatezero.system.terminal import any_locale


def arrive() -> None:
    """Be quiet, print any character, stop when told to, and end with the process that started this one."""
    silence_lightning()
    any_locale()
    stop_on_signals()
    end_with_parent()


class Listening(Callback):
    """Takes signals back from Lightning, whose handler of SIGTERM waits for all other processes to do the same."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Listen again."""
        listen()
