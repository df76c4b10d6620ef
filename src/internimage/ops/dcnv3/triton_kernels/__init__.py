"""The Triton kernels: forward, backward, and what they share; launched by triton_launch.py alone."""
