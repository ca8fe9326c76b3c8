"""What is timed: named sets of workloads, and the test that measures them."""
