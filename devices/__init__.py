"""The devices of the machine, one a file; see contracts.py for what they are given."""
