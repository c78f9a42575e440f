"""What value: weight encoding, column sums, converters and neurons, in torch; never the time they take."""
