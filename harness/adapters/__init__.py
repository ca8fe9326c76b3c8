"""The built-in implementations, one file per family; the only place that imports anyone else's recurrent layers."""
