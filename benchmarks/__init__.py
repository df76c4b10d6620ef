"""Measurements of the operator, the networks and the training step; ``python -m benchmarks`` runs them."""
