"""The comparison: start each arm, load it, certify what ran, decide."""
