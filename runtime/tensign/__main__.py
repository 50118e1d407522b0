"""`python -m tensign` is the `tensign` command."""

from tensign.cli import main

if __name__ == "__main__":
    main()
