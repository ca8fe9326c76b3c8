"""Tests of the reports, and the made-up run that they read."""
