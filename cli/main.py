"""The ``tilecast`` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line; see `cli.failures` for how it ends, and `tilecast.signals` for a signal n: 128 + n.

    Everything is imported where the signals are heeded: that takes most of the time of a short command.
    """
    from tilecast.signals import heeded

    with heeded():
        _run()


def _run() -> None:
    import sys

    from reports.console import any_text, flush

    any_text(sys.stdout, sys.stderr)

    from cli.failures import failed, failing_threads, foreseen
    from tilecast.signals import Interrupted, lost

    try:
        with failing_threads():
            from cli.app import app

            app()
    except (Interrupted, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        if lost() and not foreseen(error):
            raise KeyboardInterrupt from error
        sys.exit(failed(error))
    finally:
        flush()


if __name__ == "__main__":
    main()
