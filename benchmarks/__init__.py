"""Speed, as ratios within one run; ``python -m benchmarks.NAME`` prints a table each."""
