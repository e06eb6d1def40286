"""Where the curves of a training go while it runs: TensorBoard's event files always, and the trackers of others."""
