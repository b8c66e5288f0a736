"""gpunn measured beside what its users would otherwise pick: ``python -m benchmarks run``, then ``report``.

==================  ==========================================================================
``workloads.py``    what is trained, as data; a workload written into a folder as a problem
``peers/``          who trains it, a file each; none but gpunn's own imports gpunn
``worker.py``       the process in which one peer lives
``harness.py``      starts the workers, compares what they compute, times them in turn
``floors.py``       what the machine itself can do: FMA, a large product, a copy
``scaling.py``      workloads that grow in one direction
``kernels/``        every op by itself, under pytest-benchmark
``environment.py``  where and with what it was measured
``results.py``      result files; one without its environment is refused
``tables.py``       results as tables: README's and the terminal's
``page/``           results as one HTML page
==================  ==========================================================================

This module imports nothing: workers run in the peers' own Python, which may have no gpunn.
"""
