"""A study that a test can kill: squares of numbers, each after a moment.

python -m tests.tilecast.studies.slow_squares FOLDER COUNT WORKERS
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tilecast.studies.result_store import Result, ResultStore, run_points


def square(number: int) -> Result:
    time.sleep(0.01)
    return {"square": number * number, "third": number / 3}


def numbers(count: int) -> dict[str, int]:
    return {f"key-{number}": number for number in range(count)}


if __name__ == "__main__":
    with ResultStore(Path(sys.argv[1])) as kept:
        run_points(square, numbers(int(sys.argv[2])), kept, workers=int(sys.argv[3]))
