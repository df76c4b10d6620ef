"""The benchmark on a GPU: the operator, the networks and training beside the official kernels and their successors."""
