"""Pictures of the paper's rules."""
