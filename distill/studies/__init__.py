"""Studies: several configs (arms) x budgets x seeds, run one after another and put into one table."""
