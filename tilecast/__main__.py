"""``python -m tilecast``, and the ``tilecast`` command."""

from cli.main import main

if __name__ == "__main__":
    main()
