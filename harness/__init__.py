"""How: describe a layer, build an implementation of it, run a contract, take a measurement, write a record."""
