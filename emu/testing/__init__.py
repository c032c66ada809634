"""For testing guests: the pytest plugin, the evidence it keeps of a failure, and files for the guest."""
