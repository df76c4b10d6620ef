"""InternImage as other ecosystems know models: one file each, none imported before it is asked for."""
