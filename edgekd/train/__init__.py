"""The stage graph and the loop that trains it."""
