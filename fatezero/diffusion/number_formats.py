"""Which number formats a CPU multiplies in by itself."""

from __future__ import annotations

import torch

# Instructions of x86 and ARM that multiply in number formats below float32, as `torch.cpu.get_capabilities` names them.
CPU_FORMATS = {
    torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16"),
    torch.float16: ("avx512_fp16", "amx_fp16", "fp16_arith"),
}


def slow_format(dtype: torch.dtype, device: torch.device) -> tuple[str, ...]:
    """A sentence where the CPU makes up for a number format that it lacks, which takes longer than float32."""
    if device.type != "cpu" or cpu_multiplies_in(dtype) is not False:
        return ()
    return (f"this CPU has no {str(dtype).removeprefix('torch.')} of its own: float32 is faster and exact",)


def cpu_multiplies_in(dtype: torch.dtype) -> bool | None:
    """Whether the CPU has instructions for a number format; None where this version of torch cannot tell."""
    if dtype not in CPU_FORMATS:
        return True
    if not hasattr(torch.cpu, "get_capabilities"):  # torch 2.10 lacks it
        return None
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in CPU_FORMATS[dtype])
