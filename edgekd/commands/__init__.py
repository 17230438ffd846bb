"""The commands of the command line, by the folder they work on."""
