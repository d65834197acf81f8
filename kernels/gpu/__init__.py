"""The GPU engine: persistent Triton kernels that hold the weights on chip for a whole chunk."""

from __future__ import annotations
