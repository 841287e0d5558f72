"""``python -m flint``: the same as the ``flint`` command."""

from flint.cli import main

if __name__ == "__main__":
    main()
