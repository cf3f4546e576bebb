"""Tables: reading, encoding, selection of columns, resampling. NumPy in, NumPy out, for any framework."""
