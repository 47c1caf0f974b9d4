"""Which signals are a request, which are the same one again, and which are none."""

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


def outcome(code: str) -> tuple[int, str, str]:
    """Exit code and output of a process that runs this with an interruption entered."""
    head = "import os, signal, sys, time\nfrom litmoe.training.interruption import Interruption\n"
    head += "def send(name):\n    os.kill(os.getpid(), getattr(signal, name))\n"
    done = subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_second_request_leaves_at_once() -> None:
    code, _, said = outcome(
        "with Interruption():\n    send('SIGTERM'); time.sleep(1.2); send('SIGINT'); time.sleep(60)"
    )
    assert code == 130
    assert "finishing this step and saving; the same again leaves at once" in said


@pytest.mark.parametrize("second", ["SIGHUP", "SIGTERM"])
def test_the_same_request_again_does_not(second: str) -> None:
    """A closing terminal sends SIGHUP as often as it likes; a launcher passes SIGTERM on at once."""
    wait = "time.sleep(1.2);" if second == "SIGHUP" else ""
    code, printed, _ = outcome(
        f"with Interruption() as ended:\n    send('{second}'); {wait} send('{second}'); print(ended.signal.name)"
    )
    assert (code, printed) == (0, f"{second}\n")


def test_what_nohup_ignores_stays_ignored() -> None:
    code, printed, _ = outcome(
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with Interruption() as ended:\n    send('SIGHUP'); print(ended.signal)"
    )
    assert (code, printed) == (0, "None\n")


def test_without_stderr_a_request_is_one_all_the_same() -> None:
    code, printed, _ = outcome(
        "os.close(2)\nwith Interruption() as ended:\n    send('SIGTERM'); print(ended.signal.name)"
    )
    assert (code, printed) == (0, "SIGTERM\n")


def test_handlers_are_put_back() -> None:
    code, printed, _ = outcome(
        "before = [signal.getsignal(n) for n in (signal.SIGHUP, signal.SIGTERM)]\n"
        "with Interruption(): pass\n"
        "print(before == [signal.getsignal(n) for n in (signal.SIGHUP, signal.SIGTERM)])"
    )
    assert (code, printed) == (0, "True\n")


def test_this_process_still_has_its_own() -> None:
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL and os.getpid()
