"""What the commands `cusa check`, `cusa init` and `cusa datasets` do."""
