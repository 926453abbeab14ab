"""``python -m zerodefect`` is the command ``zerodefect``."""

from zerodefect.cli import main

if __name__ == "__main__":
    main()
