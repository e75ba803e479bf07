"""What an exit code of ``tilecast`` says, beside 0: all is well, 2: bad input, 130: interrupted."""

NEGATIVE = 3
"""The run or the answer is there and written, but it is a negative one, which a script must know: nothing finished, the
simulation is not faithful, no cluster keeps the promise."""
