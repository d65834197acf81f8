import signal
import threading

import pytest

from wavernn.train.interruption import Interruption


@pytest.fixture(autouse=True)
def handlers():
    """Puts the handlers back, whatever a test does to them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    after = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert after == before


def test_a_signal_waits_until_the_end():
    done = []
    with pytest.raises(KeyboardInterrupt), Interruption(once=True) as interruption:
        signal.raise_signal(signal.SIGINT)
        done.append(interruption.number)
    assert done == [signal.SIGINT]


def test_without_once_every_signal_waits():
    done = []
    with pytest.raises(SystemExit) as raised, Interruption(once=False) as interruption:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
            done.append(interruption.number)
    assert done == [signal.SIGINT, signal.SIGTERM]
    assert raised.value.code == 143


def test_a_number_that_another_process_got_counts_too():
    with pytest.raises(KeyboardInterrupt), Interruption(once=False) as interruption:
        interruption.number = signal.SIGINT


def test_an_error_is_not_replaced():
    with pytest.raises(ValueError, match="ours"), Interruption(once=True):
        signal.raise_signal(signal.SIGINT)
        raise ValueError("ours")


def test_what_ignored_ctrl_c_goes_on_ignoring_it(handlers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interruption(once=True) as interruption:
        signal.raise_signal(signal.SIGINT)
    assert interruption.number == 0
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, handlers[signal.SIGINT])


def test_in_another_thread_it_does_nothing():
    inside = []

    def work():
        with Interruption(once=True) as interruption:
            inside.append((interruption.number, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(0, signal.getsignal(signal.SIGINT))]
