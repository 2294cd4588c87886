"""Lightning's remarks are for its own users."""

from __future__ import annotations

import logging
import warnings


def silence_lightning() -> None:
    """Show no remarks of Lightning in this process."""
    for name in ("lightning.pytorch", "lightning.fabric", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
