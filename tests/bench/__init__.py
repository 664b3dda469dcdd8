"""Benchmarks: each measures both sides in the same run, prints a table and asserts its bounds."""
