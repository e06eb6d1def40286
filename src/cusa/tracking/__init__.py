"""Sends the curves of a training to TensorBoard's event files and to other trackers while it runs."""
