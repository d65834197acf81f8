"""What a launch compiles, without a GPU: prints a line of JSON for each kernel that would run.

A driver that only names its target stands in for the real one, and launches end where they would
start a program. Run in a process without TRITON_INTERPRET.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from wavernn import recipe
from wavernn.kernels.bench import random_voice
from wavernn.kernels.gpu.choice import choose
from wavernn.kernels.gpu.compiled import SHARED
from wavernn.kernels.gpu.device_work import call_of
from wavernn.kernels.gpu.machine_code import measure
from wavernn.kernels.gpu.subscale_group import Lanes, Window

ARCH = 90
# a kernel and the voice whose configuration is its default
PAIRS = {"resident": "sparse-512", "group": "dense-896", "tagged": "dense-896"}


class Driver:
    """Names a target, and a CPU's memory as the device's."""

    def get_current_target(self):
        return GPUTarget("cuda", ARCH, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_active_torch_device(self):
        return torch.device("cpu")


def main():
    made, run = [], JITFunction.run

    def compile_only(function, *arguments, grid, warmup, **options):
        made.append(run(function, *arguments, grid=grid, warmup=True, **options))

    def show(name, samples, scored):
        (program,) = made
        code = measure(program.asm["cubin"], program.metadata.shared, SHARED[ARCH][1])
        row = {"kernel": name, "samples": samples, "scored": scored}
        row["cooperative"] = program.metadata.launch_cooperative_grid
        print(json.dumps(row | code.to_dict()), flush=True)

    driver.set_active(Driver())
    JITFunction.run = compile_only
    for name, voice_name in PAIRS.items():
        voice = random_voice(recipe.load(voice_name))
        kernel, _ = choose(voice, torch.device("cpu"), None, name)
        for samples, known in ((1, None), (240, None), (3, np.zeros((1, 3, 2), np.uint8))):
            made.clear()
            kernel.launch(call_of(voice, "cpu", 1, samples, known))
            show(name, samples, known is not None)
    voice = random_voice(recipe.load("subscale-16"))
    lanes, codes = Lanes(voice, "cpu"), torch.zeros(64, 2, dtype=torch.uint8)
    gates, logits = torch.zeros(1, voice.config.model.gate_rows), torch.zeros(64, 2, 256)
    for samples, given in ((1, {}), (64, {}), (64, {"known_W2": codes, "logits_W2Q": logits})):
        made.clear()
        given = given or {"uniform_W2": torch.zeros(64, 2)}
        lanes.run(Window(gates, codes, 0, **given), samples // 2, samples)
        show("subscale", samples, "known_W2" in given)


if __name__ == "__main__":
    main()
