"""`python -m edgekd`."""

from edgekd.cli import entry

entry()
