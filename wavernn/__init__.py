"""WaveRNN: mel spectrograms to speech, one 16-bit sample at a time, fast enough to stream.

Letters for the axes of tensors, the same in Python, Triton and C++. A tensor's name ends in its
axes, outermost first: `h_BH`, `codes_BT2`.

| letter | meaning | letter | meaning |
|---|---|---|---|
| `B` | streams in a batch | `T` | time in samples |
| `N` | time in mel frames or conditioning steps | `M` | mel bands |
| `C` | conditioning channels | `H` | hidden units, both halves |
| `G` | 3H gate rows, order u, r, e | `P` | width of the hidden output layers |
| `E` | length of a byte's learned row | `Q` | 256 levels of one half |
| `U` | subscale factor | `K` | kept blocks |
| `R`, `W` | rows and columns of a block | `S` | samples of a window or transform |
"""

import importlib

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Finds `load` of `wavernn.vocoder`, so that `import wavernn` stays light."""
    if name == "load":
        return importlib.import_module("wavernn.vocoder").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
