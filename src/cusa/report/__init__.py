"""The summary of all scores, and the report's page."""
