"""The commands `cusa check`, `cusa init` and `cusa datasets`."""
