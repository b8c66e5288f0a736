"""The CUDA backend: runs programs on an NVIDIA GPU."""
