"""``python -m internimage`` is the command ``internimage``."""

from internimage.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
