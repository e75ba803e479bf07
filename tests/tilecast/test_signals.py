"""Ctrl-C, SIGTERM and a closed terminal end a command in good order, however often they come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.main import main
from tests.cli.run_command import own_signals
from tests.waiting import PATIENCE_S
from tilecast.signals import ENDING, Interrupted, came, heeded, instead

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those of a terminal, whatever the tests were started by."""
    with own_signals():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        yield


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_is_one_line_and_its_exit_code(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left, heeded():
        signal.raise_signal(number)
    signal.raise_signal(number)  # once more, while the interpreter ends
    assert left.value.code == 128 + number
    assert capsys.readouterr().err == "interrupted; the same command starts anew\n"


def test_a_second_signal_does_not_disturb_the_winding_down(capsys: pytest.CaptureFixture[str]) -> None:
    done = []

    def ended_twice() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            assert came()
            for number in ENDING:
                signal.raise_signal(number)
                done.append(number)
            raise Interrupted("interrupted: all is kept") from None

    with pytest.raises(SystemExit) as left, heeded():
        ended_twice()
    assert left.value.code == 143
    assert len(done) == 3
    assert capsys.readouterr().err == "interrupted: all is kept\n"


def test_a_third_wish_ends_a_command_that_does_not_end() -> None:
    endless = (
        "import os, time; from tilecast.signals import heeded\n"
        "with heeded():\n"
        "    try:\n        print('ready', flush=True); time.sleep(600)\n"
        "    finally:\n        print('ending', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", endless], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "ending\n"
        assert process.stderr is not None
        for heard in ("\nending in good order; once more ends at once\n", ""):
            assert process.poll() is None
            time.sleep(1.1)  # what comes sooner is the same wish
            process.send_signal(signal.SIGTERM)
            assert "".join([process.stderr.readline() for _ in range(2)]) == heard
        assert process.wait(PATIENCE_S) == 143


def test_a_signal_where_nothing_can_be_raised_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    class Leaving:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        Leaving()
        time.sleep(10)

    with pytest.raises(SystemExit) as left, heeded():
        work()
    assert left.value.code == 143
    assert "Exception ignored" not in capsys.readouterr().err


def test_what_was_ignored_before_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with heeded():
            signal.raise_signal(signal.SIGHUP)
            assert not came()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_can_have_something_done_instead() -> None:
    done = []
    with heeded():
        with instead(lambda: done.append("asked")):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        assert done == ["asked"]


def test_an_error_that_a_library_makes_of_a_signal_is_the_signal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def built() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise ValueError("no validator") from error

    monkeypatch.setattr("cli.app.app", built)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 143
    assert capsys.readouterr().err == "interrupted; the same command starts anew\n"


@pytest.mark.parametrize(
    ("block", "code"),
    [
        ("exec('signal.raise_signal(signal.SIGINT)')", 130),  # CPython's own answer to it, see `_Ended`
        ("pass", 0),
    ],
)
def test_the_exit_code_stays_while_the_interpreter_ends(tmp_path: Path, block: str, code: int) -> None:
    (tmp_path / "ending.py").write_text(
        "import atexit, signal\n"
        "from tilecast.signals import heeded\n"
        "atexit.register(signal.raise_signal, signal.SIGINT)\n"
        f"with heeded():\n    {block}\n"
        "signal.raise_signal(signal.SIGTERM)\n"
    )
    command, env = [sys.executable, "-m", "ending"], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
