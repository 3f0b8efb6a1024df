"""The subcommands of ``stpn``: each parses its arguments and calls the library.

The library is imported inside the subcommands, so that ``--help`` answers at once.
"""
