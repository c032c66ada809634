"""A machine as a file: what it is at one instant, from which any number of machines go on."""
