"""The page ``report.html``: `build.write_report` for one experiment, `command` for several."""
