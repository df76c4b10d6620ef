"""Functions on tensors; they know nothing of networks."""
