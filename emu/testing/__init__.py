"""For tests of a guest: the pytest plugin, what it keeps of a failure, and files for the guest."""
