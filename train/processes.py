"""The processes that train one voice together, as torchrun starts them; usually there is one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wavernn.errors import TrainingError, WaveRNNError

Result = TypeVar("Result")

# the others wait while the first makes features or validates
PATIENCE = timedelta(hours=3)


@dataclass(frozen=True)
class Processes:
    """This process's place among those that train together; the first speaks and writes for all."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def join(cls) -> Processes:
        """Joins the others, over NCCL with a GPU for each, else over gloo, or stands alone."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        cuda = torch.cuda.is_available()
        if cuda and local >= torch.cuda.device_count():
            raise TrainingError(
                f"torchrun started more processes than this machine's {torch.cuda.device_count()} "
                "GPUs; give it a smaller --nproc-per-node"
            )
        device = torch.device("cuda", local) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(device)
        if world > 1:
            dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
        return cls(int(os.environ.get("RANK", "0")), world, device)

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.world > 1:
            dist.destroy_process_group()
        if self.rank and isinstance(error, WaveRNNError):
            # the first process says the same
            raise SystemExit(2) from None

    def share(self, batch: int) -> slice:
        """The lanes of a batch that are this process's."""
        if batch % self.world:
            raise TrainingError(
                f"train.batch ({batch}) must be a multiple of the number of processes "
                f"({self.world}); change one of them"
            )
        each = batch // self.world
        return slice(self.rank * each, (self.rank + 1) * each)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with its gradients averaged over all processes."""
        return DistributedDataParallel(model) if self.world > 1 else model

    def first(self, work: Callable[[], Result]) -> Result | None:
        """Lets the first process work while the others wait; if it fails, all of them do."""
        result, error = None, None
        if self.rank == 0:
            try:
                result = work()
            except WaveRNNError as caught:
                error = caught
        if self.largest(int(error is not None)):
            raise error or TrainingError("the first process failed, see above")
        return result

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give."""
        if self.world == 1:
            return number
        value = torch.tensor(number, device=self.device)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def gather(self, share_BH: Tensor) -> Tensor:
        """Puts the shares of all processes together, in their order."""
        if self.world == 1:
            return share_BH
        parts = [torch.empty_like(share_BH) for _ in range(self.world)]
        dist.all_gather(parts, share_BH.contiguous())
        return torch.cat(parts)
