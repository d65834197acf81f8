"""The GPU engine: persistent kernels that hold the weights on chip for a whole chunk.

Streams are dealt to lanes of a kernel, which a voice's size and the device choose: see README.md
beside the other engines.
"""

from __future__ import annotations

import importlib.util

import torch

from wavernn.kernels.gpu.launcher import Synthesizer as Synthesizer

# the first generation with what the kernels are compiled for
CAPABILITY = (8, 0)


def unavailable() -> str | None:
    """Says why no kernel can run here."""
    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else ", which is a build without CUDA"
        return f"the gpu engine needs an NVIDIA GPU, and torch {torch.__version__}{built} sees none"
    capability = torch.cuda.get_device_capability()
    if capability < CAPABILITY:
        name = torch.cuda.get_device_name()
        return (
            f"the gpu engine needs a GPU of compute capability {CAPABILITY[0]}.{CAPABILITY[1]}, "
            f"{name} has {capability[0]}.{capability[1]}"
        )
    if importlib.util.find_spec("triton") is None:
        return "the gpu engine needs Triton: pip install 'wavernn[gpu]'"
    return None
