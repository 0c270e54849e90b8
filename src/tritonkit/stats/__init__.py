"""From raw samples and server counters to numbers."""
