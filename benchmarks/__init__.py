"""The benchmark suite: workloads, load clients, contenders and reports. See benchmarks/README.md."""
