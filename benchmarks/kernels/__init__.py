"""Every op by itself, on every backend: ``pytest benchmarks``, under pytest-benchmark.

===============  ==========================================================================
``ops.py``       which ops, at which sizes; the bytes that each has to move
``programs.py``  an op as a program of its own, with data to run on
``test_ops.py``  the benchmark
``record.py``    all of it in a process of its own, as a record for ``benchmarks.results``
===============  ==========================================================================

``pytest benchmarks --benchmark-autosave`` keeps a run, ``pytest benchmarks --benchmark-compare`` shows it
beside the next one; ``--backend numpy`` chooses, ``--quick`` takes a look, ``-k adam`` picks one op.
"""
