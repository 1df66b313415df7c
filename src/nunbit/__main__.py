"""``python -m nunbit``, for launchers that start modules, such as ``torchrun``."""

from nunbit.cli import main

if __name__ == "__main__":
    main()
