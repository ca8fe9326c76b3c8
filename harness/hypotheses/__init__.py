"""Known faults of recurrent layers, each as a change to what the oracle is asked or to what it answers."""
