"""Compiles every CUDA kernel without a GPU, and reads what became of it: registers, spills, wide accesses."""
