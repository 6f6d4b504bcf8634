"""A root's runs in one view: ``logs/`` and ``results/`` read into records, written as Markdown and as one HTML page."""
