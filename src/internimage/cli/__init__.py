"""The command line: ``internimage``, or ``python -m internimage``."""
