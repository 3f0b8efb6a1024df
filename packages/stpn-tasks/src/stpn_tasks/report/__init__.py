"""Measured numbers for people and programs: tables, json, and the page ``report.html``.

The page's modules are imported by name: they read ``stpn_tasks.results``, which needs the tables.
"""

from stpn_tasks.report.tables import (
    environment,
    precision_json,
    precision_table,
    print_table,
    write_json,
)

__all__ = ["environment", "precision_json", "precision_table", "print_table", "write_json"]
