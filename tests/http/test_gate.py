"""The gate in front of the pool."""

from __future__ import annotations

import threading
import time

from jobmon.thin_common.database import FairGate


def test_places_go_to_those_who_wait_longest() -> None:
    gate = FairGate(1, 60)
    first = gate.enter()
    assert first
    order: list[int] = []

    def wait(number: int) -> None:
        place = gate.enter()
        assert place is first
        order.append(number)
        gate.leave(place)

    threads = []
    for number in range(8):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        while len(gate._waiting) <= number:
            time.sleep(0.001)
    gate.leave(first)
    for thread in threads:
        thread.join(60)
    assert order == list(range(8))
    assert gate.enter()


def test_waiting_is_bounded_and_not_repeated_while_nobody_leaves() -> None:
    gate = FairGate(1, 0.2)
    place = gate.enter()
    assert place
    began = time.monotonic()
    assert not gate.enter()
    assert 0.15 < time.monotonic() - began < 10
    began = time.monotonic()
    assert not any(gate.enter() for _ in range(100))
    assert time.monotonic() - began < 10  # not 100 times 0.2 s
    gate.leave(place)
    assert gate.enter() is place


def test_no_place_is_lost_or_made_under_load() -> None:
    gate = FairGate(3, 0.01)
    inside = peak = entered = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, peak, entered
        for _ in range(200):
            place = gate.enter()
            if place:
                with lock:
                    inside += 1
                    entered += 1
                    peak = max(peak, inside)
                time.sleep(0.0002)
                with lock:
                    inside -= 1
                gate.leave(place)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert peak <= 3
    assert entered
    assert {gate.enter() for _ in range(3)} == set(gate.places)
    assert gate.enter() is None
