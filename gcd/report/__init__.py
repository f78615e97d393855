"""The report: from recorded JSON and JSON Lines to tables, figures, sentences and pages."""
