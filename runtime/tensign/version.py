"""The version, in one place: hatchling, the command line and the server's metadata read it here."""

__version__ = "0.1.0"
