"""Pure data that more than one package speaks of. No I/O, no behaviour beyond derivation."""
