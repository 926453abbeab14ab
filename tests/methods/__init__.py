"""A package, because files of tests/parity have the same names."""
