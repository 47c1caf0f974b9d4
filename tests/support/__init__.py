"""Helpers of the tests; the benchmarks use some of them too."""
