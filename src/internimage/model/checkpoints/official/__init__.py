"""What the released code calls things that are no weights."""
