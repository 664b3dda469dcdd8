"""What the tests stand on: real processes, real engines, and faults put between them."""
