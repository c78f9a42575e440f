"""When, and at what energy: the parts of a netlist, and the SimPy processes that execute it."""
