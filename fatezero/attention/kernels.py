"""Which kernel computes attention: torch's own choice, or one that diffusers knows by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from fatezero.errors import UserError, first_line
from fatezero.system.terminal import quoted


@contextmanager
def attention_kernel(name: str | None) -> Iterator[None]:
    """Attention that goes through diffusers' dispatch uses a kernel while the context lasts.

    Args:
        name: of diffusers' attention backends, such as "flash", "sage", "flex" or "_native_cudnn"; None leaves
            the choice to diffusers: to its environment variable, a model's `set_attention_backend`, or torch.

    Raises:
        UserError: if there is no such kernel, it is not installed, or it would be fetched as code from the hub.
    """
    if name is None:
        yield
        return
    from diffusers.models.attention_dispatch import (  # noqa: PLC0415  (seconds to import)
        AttentionBackendName,
        attention_backend,
    )

    names = sorted(kernel.value for kernel in AttentionBackendName if not _is_fetched(kernel.value))
    if _is_fetched(name):
        raise UserError(
            f"attention_kernel {quoted(name)} is code that would be fetched and run: install a kernel of that kind "
            "and name it without _hub."
        )
    if name not in names:
        raise UserError(f"attention_kernel is {quoted(name)}: diffusers knows {', '.join(names)}.")
    with ExitStack() as stack:
        try:
            stack.enter_context(attention_backend(name))
        except (RuntimeError, ImportError) as error:
            raise UserError(
                f"attention_kernel {quoted(name)} does not work here ({first_line(error)}): install it or leave it out."
            ) from error
        yield


def kernel_in_use(name: str | None) -> str:
    """The kernel that `attention_kernel` leads to; "native" is torch's own choice.

    Without a name it is diffusers' active one, of its environment variable or of a model's `set_attention_backend`.
    """
    if name is not None:
        return name
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry  # noqa: PLC0415  (seconds to import)

    active: str = _AttentionBackendRegistry.get_active_backend()[0].value
    return active


def check_kernel(name: str | None) -> None:
    """Refuse what `attention_kernel` refuses, before the work begins.

    Raises:
        UserError: as there.
    """
    with attention_kernel(name):
        pass


def _is_fetched(name: str) -> bool:
    return name.endswith("_hub")
