"""What: the contracts, the mutants that prove them, the workloads."""
