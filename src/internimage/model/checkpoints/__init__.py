"""Weight files: finding them, reading and writing them, renaming what is in them, fitting it into a network."""
