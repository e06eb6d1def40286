"""The summary of all scores, and the page for people."""
