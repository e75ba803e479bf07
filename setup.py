"""Compiles the event loop when a wheel is built, as ``pip install .`` does: a simulation then takes half the time.

mypyc makes C of the modules as they are, so that what they compute is the same to the last bit. Where there is no
compiler the same modules run as plain Python; so they do in an editable install, where they change. TILECAST_PLAIN=1
leaves them as they are. Policies of a user's own are plain Python either way.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

COMPILED = [
    "sim/driver.py",
    "sim/durations.py",
    "sim/timeline.py",
    "sim/world.py",
    "sim/worlds.py",
    "policies/controller.py",
    "policies/router.py",
    "policies/rules.py",
    "predictors/online.py",
    "policies/scheduling/batch.py",
    "policies/scheduling/degree_plan.py",
    "policies/scheduling/forecast.py",
    "policies/scheduling/lookahead_errors.py",
    "policies/scheduling/lookahead_fair.py",
    "policies/scheduling/lookahead_waiting.py",
    "policies/scheduling/lookahead_rides.py",
    "policies/scheduling/lookahead_search.py",
    "policies/scheduling/mixing.py",
]
"""What every event goes through. No policies and cost models: what a user's own are derived from stays plain Python."""


class BuildOrLeave(build_ext):
    """Builds all of the extensions, or none."""

    def run(self) -> None:
        try:
            super().run()
        except (BaseError, CCompilerError) as error:
            stays_plain(error)
            for output in self.get_outputs():
                Path(output).unlink(missing_ok=True)
            self.extensions = []


def stays_plain(why: object) -> None:
    """Say so; it is no error."""
    print(f"tilecast stays plain Python, which simulates more slowly: {why}", file=sys.stderr)


def extensions() -> list[Extension]:
    """What mypyc makes of the event loop; nothing where it is not wanted or not there."""
    if "bdist_wheel" not in sys.argv or os.environ.get("TILECAST_PLAIN"):
        return []
    options = ["--config-file=", "--python-version=3.11", "--ignore-missing-imports", "--follow-imports=silent"]
    try:
        from mypyc.build import mypycify

        return mypycify([*options, *COMPILED], opt_level="2", debug_level="0")
    except (ImportError, SystemExit) as error:  # it ends so where it finds a fault
        stays_plain(error)
        return []


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildOrLeave})
