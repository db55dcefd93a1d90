"""Pure functions of arrays and tensors: no files, no options, no BasicSR."""
