import pytest
import torch

from wavernn.errors import DataError, TrainingError
from wavernn.train.processes import Processes

CPU = torch.device("cpu")


def test_a_process_alone_has_all_lanes(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    alone = Processes.join()
    assert alone == Processes(0, 1, CPU)
    assert alone.share(7) == slice(0, 7)
    assert alone.largest(15) == 15
    assert alone.first(lambda: "made") == "made"
    h_BH = torch.randn(7, 4)
    assert alone.gather(h_BH) is h_BH
    model = torch.nn.Linear(2, 2)
    assert alone.wrap(model) is model


def test_lanes_are_shared_in_order():
    assert [Processes(rank, 3, CPU).share(12) for rank in range(3)] == [
        slice(0, 4),
        slice(4, 8),
        slice(8, 12),
    ]


@pytest.mark.parametrize("error", [DataError, ValueError])
def test_what_fails_in_the_first_process_is_raised(error):
    def fail():
        raise error("this")

    with pytest.raises(error, match="this"):
        Processes(0, 1, CPU).first(fail)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(TrainingError, match=r"more processes than this machine's 2 GPUs; give"):
        Processes.join()
