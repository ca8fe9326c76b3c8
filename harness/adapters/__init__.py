"""The built-in implementations, a file for each family and its parts; the only place that imports anyone else's recurrent layers."""
