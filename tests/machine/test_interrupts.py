"""Signals that wait for a step, signals that end the program, and the clock of automatic checkpoints."""

import ctypes
import signal
import sys
import time

import pytest

from machine.interrupts import Interrupt, SaveClock, Stopped, signals_stop, stop_behind

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


@pytest.fixture(autouse=True)
def _hangups_count():
    """Whatever started the tests, such as nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_two_signals_wait_for_the_step_and_a_third_does_not(number):
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        assert not interrupt.asked
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGINT)
        assert interrupt.asked and interrupt.signal == number
        with pytest.raises(Stopped) as stop:
            signal.raise_signal(signal.SIGINT)
    assert stop.value.status == 128 + number and signal.getsignal(number) == before


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_a_loop_a_signal_ends_the_program_once(number):
    with signals_stop():
        with pytest.raises(KeyboardInterrupt) as stop:
            signal.raise_signal(number)
        assert stop.value.status == 128 + number
        signal.raise_signal(number)  # what is being cleaned up is not disturbed
        with Interrupt() as interrupt:  # and should the exception have been dropped, a loop stops at once
            assert interrupt.signal == number


def test_an_ignored_hangup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with signals_stop(), Interrupt() as interrupt:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupt.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_clock_is_due_when_its_minutes_are_over(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock, never = SaveClock(0.5), SaveClock(None)
    due = []
    for now[0] in (110.0, 130.0, 140.0, 159.0, 160.0):
        due.append(clock.due())
    assert due == [False, True, False, False, True] and not never.due()


def test_a_signal_that_c_code_went_through_is_found_behind_its_error():
    stop = Stopped(signal.SIGTERM)
    try:
        try:
            raise stop
        except Stopped as error:
            raise SystemError("returned a result with an exception set") from error
    except SystemError as error:
        assert stop_behind(error) is stop and stop.status == 143
    assert stop_behind(SystemError("of its own")) is None


def test_a_signal_that_c_code_has_dropped_is_found_behind_the_error_that_came_of_it(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: told.append(dropped.exc_type))
    calls_back = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGTERM))
    broken = ctypes.CFUNCTYPE(None)(lambda: 1 / 0)
    with signals_stop():
        calls_back()
        assert stop_behind(RuntimeError("no compiled object yet")).status == 143
        broken()
    assert stop_behind(RuntimeError("no compiled object yet")) is None
    assert told == [ZeroDivisionError], "the signal is not told of, all else is as ever"
